"""Experiments by name. A run's saved `config.json` stands for an experiment too."""

import difflib
import json
import pathlib
import types
from collections.abc import Mapping
from typing import TypeVar

from configs import generalist, pi05_finetune, restock_demo, restock_pretrain, value_training
from configs.experiment import DemoConfig, PretrainConfig
from configs.files import from_json
from configs.value_training import ValueTrainingConfig
from sop_jax.specs.errors import ConfigError

DEMOS: Mapping[str, DemoConfig] = types.MappingProxyType(
    {config.name: config for config in (restock_demo.CONFIG, restock_demo.PI05_TINY, restock_demo.TINY)}
)
PRETRAININGS: Mapping[str, PretrainConfig] = types.MappingProxyType(
    {
        config.name: config
        for config in (
            restock_pretrain.CONFIG,
            restock_pretrain.PI05_TINY,
            restock_pretrain.PI05_TINY_REAL_TIME,
            generalist.PRETRAIN,
            generalist.FEW,
        )
    }
)
FINETUNINGS: Mapping[str, DemoConfig] = types.MappingProxyType(
    {config.name: config for config in (pi05_finetune.ONE_GPU, pi05_finetune.EIGHT_GPUS, pi05_finetune.TPU_SLICE)}
)
"""For `sop learn`, `sop replay` and `sop act`; their base policies don't come with this repository, so no demo runs here."""

VALUE_TRAININGS: Mapping[str, ValueTrainingConfig] = types.MappingProxyType(
    {value_training.CONFIG.name: value_training.CONFIG}
)

Experiment = TypeVar("Experiment")


def find_demo(name_or_file: str) -> DemoConfig:
    """The demo of this name, or the one saved in this file. Raises ConfigError."""
    return _find(name_or_file, DEMOS, DemoConfig)


def find_learning(name_or_file: str) -> DemoConfig:
    """The demo or the finetuning of this name, or the one saved in this file. Raises ConfigError."""
    return _find(name_or_file, {**DEMOS, **FINETUNINGS}, DemoConfig)


def find_pretraining(name_or_file: str) -> PretrainConfig:
    """The pretraining of this name, or the one saved in this file. Raises ConfigError."""
    return _find(name_or_file, PRETRAININGS, PretrainConfig)


def find_value_training(name_or_file: str) -> ValueTrainingConfig:
    """The value training of this name, or the one saved in this file. Raises ConfigError."""
    return _find(name_or_file, VALUE_TRAININGS, ValueTrainingConfig)


def _find(name_or_file: str, known: Mapping[str, Experiment], kind: type[Experiment]) -> Experiment:
    if name_or_file in known:
        return known[name_or_file]
    path = pathlib.Path(name_or_file)
    if path.suffix == ".json":
        try:
            return from_json(kind, json.loads(path.read_text(encoding="utf-8")), str(path))
        except FileNotFoundError:
            raise ConfigError(f"there is no config file {name_or_file}") from None
        except json.JSONDecodeError as error:
            raise ConfigError(f"{name_or_file} is not JSON: {error}") from None
    near = difflib.get_close_matches(name_or_file, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"unknown config {name_or_file!r}{hint} (known: {', '.join(sorted(known))}; or a config.json of a run)"
    )
