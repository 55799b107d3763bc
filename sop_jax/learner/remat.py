"""The learner's say in what the backward pass computes again."""

import dataclasses
from typing import Literal

from sop_jax.models.policy import PolicyModel
from sop_jax.models.registry import create_model
from sop_jax.specs.errors import ConfigError

_POLICY_VALUES = {"none": False, "dots": "dots", "full": True}


def with_remat(model: PolicyModel, remat: Literal["policy", "none", "dots", "full"]) -> PolicyModel:
    """The same policy, recomputing what `LearnerConfig.remat` says. Neither parameters nor results depend on it, so a base
    policy's fingerprint stays that of its own config. Raises ConfigError if the policy has no such choice."""
    if remat == "policy":
        return model
    if not hasattr(model.config, "remat"):
        raise ConfigError(
            f"LearnerConfig.remat={remat!r}, but {type(model).__name__} keeps all of its activations: use remat='policy'."
        )
    return create_model(dataclasses.replace(model.config, remat=_POLICY_VALUES[remat]))
