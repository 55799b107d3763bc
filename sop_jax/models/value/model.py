"""The interface of value functions, their config, and how one is made on the towers of a policy.

Legend: `B` batch, `L` text tokens, `V` bins.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int32, PRNGKeyArray

from sop_jax.models.batch import ObservationBatch
from sop_jax.models.normalization import NormStats
from sop_jax.models.pytrees import Params, flatten_params, unflatten_params
from sop_jax.models.registry import PolicyConfig, config_from_json, config_to_json


@dataclasses.dataclass(frozen=True)
class ValueConfig:
    """A value function of the policy's architecture.

    policy: the policy whose towers, cameras and tokens it has. num_bins: of the distribution over [-1, 0].
    width: of the layer between the compact towers and the bins (pi0.5's value expert has the action expert's width).
    """

    kind: ClassVar[str] = "value"

    policy: PolicyConfig
    num_bins: int = 201
    width: int = 256

    def __post_init__(self) -> None:
        if self.num_bins < 2 or self.width < 1:
            raise ValueError(f"ValueConfig needs num_bins >= 2 and width >= 1, got {self.num_bins} and {self.width}")

    def to_json(self) -> dict[str, Any]:
        return {"policy": config_to_json(self.policy), "num_bins": self.num_bins, "width": self.width}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "ValueConfig":
        """Raises ValueError, KeyError or TypeError if something is missing, unknown or out of its range."""
        return ValueConfig(**{**content, "policy": config_from_json(content["policy"])})


@runtime_checkable
class ValueModel(Protocol):
    """A value function as pure functions of its parameters; static as a `PolicyModel` is.

    model = create_value_model(ValueConfig(policy_bundle.config))
    params = graft_towers(model, model.init_params(key), policy_bundle.params)
    values = expected_value(jax.jit(model.logits)(params, norm, observation))       # [B], in [-1, 0]
    """

    @property
    def config(self) -> ValueConfig: ...

    @property
    def cameras(self) -> tuple[str, ...]: ...

    @property
    def image_size(self) -> int:
        """Pixels a side of the images that it looks at; others are resized (`models.images`)."""
        ...

    def init_params(self, key: PRNGKeyArray) -> Params: ...

    def logits(self, params: Params, norm: NormStats, observation: ObservationBatch) -> Float[Array, "B V"]:
        """Unnormalised log-probabilities of the bins."""
        ...

    def is_tower(self, path: tuple[str, ...]) -> bool:
        """Whether the policy has a parameter of the same meaning at this path."""
        ...

    def is_trained(self, path: tuple[str, ...]) -> bool:
        """Whether training may change the parameter at this path; False = frozen."""
        ...

    def tokenize(self, instructions: Sequence[str]) -> tuple[Int32[np.ndarray, "B L"], Bool[np.ndarray, "B L"]]: ...


def graft_towers(model: ValueModel, params: Params, policy_params: Mapping[str, Any]) -> Params:
    """`params` with the policy's own towers. Raises ValueError if the policy lacks one, or has it in another shape."""
    flat, given = flatten_params(params), flatten_params(policy_params)
    for path, leaf in flat.items():
        if not model.is_tower(path):
            continue
        if path not in given or given[path].shape != leaf.shape:
            raise ValueError(
                f"the policy has no parameter {'/'.join(path)} of shape {leaf.shape}: make the value function with the "
                "config of the policy whose towers it takes"
            )
        flat[path] = given[path]
    return unflatten_params(flat)


def check_value_inputs(model: ValueModel, norm: NormStats, observation: ObservationBatch) -> None:
    """Raises ValueError if cameras or statistics don't fit. Costs nothing at run time under jit."""
    missing = [name for name in model.cameras if name not in observation.images]
    if missing:
        raise ValueError(f"the value function needs cameras {list(model.cameras)}, the batch lacks {missing}")
    if observation.state.shape[-1] != norm.state_mean.shape[-1]:
        raise ValueError(
            f"the batch's state has {observation.state.shape[-1]} dimensions, the normalisation statistics "
            f"{norm.state_mean.shape[-1]}. Use statistics of the same robot."
        )
