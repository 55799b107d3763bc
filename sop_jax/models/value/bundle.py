"""A value function's model as a directory: what it is, its normalisation, its parameters.

value.json        format version, config, fingerprints
norm_stats.json   normalisation statistics: the policy's
params/           parameters (Orbax)
"""

import dataclasses
import json
import pathlib

from sop_jax.models.bundle import InvalidBundleError, check_params, fingerprint_of, restore_orbax, save_orbax
from sop_jax.models.normalization import NormStats, load_norm_stats, save_norm_stats
from sop_jax.models.pytrees import Params
from sop_jax.models.value.model import ValueConfig, ValueModel
from sop_jax.models.value.registry import create_value_model

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class ValueBundle:
    """A value model that can be asked. `params` is a nested dict of arrays."""

    config: ValueConfig
    params: Params
    norm: NormStats

    def __post_init__(self) -> None:
        check_params(self.model, self.params, "ValueBundle")

    @property
    def model(self) -> ValueModel:
        return create_value_model(self.config)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the config and with any parameter. Reads every parameter: keep the result."""
        return fingerprint_of(self.config.to_json(), self.params)

    def save(self, directory: pathlib.Path) -> str:
        """Writes the directory, which must not exist or be empty; returns the fingerprint. `value.json` comes last."""
        if directory.exists() and any(directory.iterdir()):
            raise FileExistsError(f"{directory} is not empty: a value function needs a directory of its own")
        directory.mkdir(parents=True, exist_ok=True)
        fingerprint = self.fingerprint
        save_norm_stats(self.norm, directory / "norm_stats.json")
        save_orbax(directory / "params", self.params)
        content = {
            "format_version": FORMAT_VERSION,
            "model": self.config.to_json(),
            "fingerprint": fingerprint,
            "norm_fingerprint": self.norm.fingerprint,
        }
        (directory / "value.json").write_text(json.dumps(content, indent=2) + "\n")
        return fingerprint


def load_value_bundle(directory: pathlib.Path) -> ValueBundle:
    """Reads a value function's directory and checks it against its fingerprints. Raises InvalidBundleError."""
    try:
        content = json.loads((directory / "value.json").read_text())
        norm = load_norm_stats(directory / "norm_stats.json")
        if content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {content['format_version']}, expected {FORMAT_VERSION}")
        config = ValueConfig.from_json(content["model"])
        params = restore_orbax(directory / "params")
    except FileNotFoundError as error:
        raise InvalidBundleError(f"{directory} is no value function: {error.filename or error} is missing") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidBundleError(f"{directory} can't be read as a value function: {error}") from error
    check_params(create_value_model(config), params, str(directory))
    bundle = ValueBundle(config, params, norm)
    got = (bundle.fingerprint, norm.fingerprint)
    if got != (expected := (content["fingerprint"], content["norm_fingerprint"])):
        raise InvalidBundleError(
            f"{directory}: parameters and normalisation have fingerprints {got}, value.json says {expected}. Files of "
            "different value functions were mixed, or one is damaged: copy the whole directory again."
        )
    return bundle
