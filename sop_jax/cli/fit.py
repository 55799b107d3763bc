"""Whether a learner's config fits its devices, before anything is loaded; and if not, which knob to turn."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from configs.experiment import DemoConfig
from configs.registry import find_learning
from sop_jax.cli.arguments import UsageError
from sop_jax.cli.locations import find_in_repository
from sop_jax.cli.machine import DeviceMemory, probe_device_memory
from sop_jax.cli.output import print_json, say
from sop_jax.learner.config import LearnerConfig
from sop_jax.learner.memory import MemoryEstimate, estimate_memory
from sop_jax.learner.shapes import stored_params, without_vocabulary
from sop_jax.models.policy import PolicyModel
from sop_jax.models.pytrees import Params
from sop_jax.models.registry import PRESETS, config_from_json, create_model
from sop_jax.specs.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Fit:
    """The answer. `advice` is "" if the config fits."""

    devices: DeviceMemory
    estimate: MemoryEstimate
    advice: str

    @property
    def fits(self) -> bool:
        return self.estimate.total <= self.devices.bytes_each


def run_fit(name: str, preset: str, num_devices: int, device_memory_gb: float, as_json: bool) -> int:
    """`sop doctor --config NAME`; returns its exit code. Devices that aren't given (0) are those of this machine."""
    config = find_learning(name)
    devices = _find_devices(num_devices, device_memory_gb)
    jax.config.update("jax_platforms", "cpu")  # shapes need no accelerator, which may be at work
    found = examine(config, preset, devices)
    for line in describe(config.name, config.learning.learner, found):
        say(line)
    if as_json:
        estimate = {**dataclasses.asdict(found.estimate), "total": found.estimate.total}
        print_json({"ok": found.fits, "advice": found.advice, "devices": devices, "bytes": estimate})
    return 0 if found.fits else 1


def _find_devices(num_devices: int, memory_gb: float) -> DeviceMemory:
    if num_devices < 0 or memory_gb < 0:
        raise UsageError(f"--devices and --device-memory-gb must be positive, got {num_devices} and {memory_gb}")
    if num_devices and memory_gb:
        return DeviceMemory("device", num_devices, round(memory_gb * 1e9))
    here = probe_device_memory()
    return DeviceMemory(here.kind, num_devices or here.num_devices, round(memory_gb * 1e9) or here.bytes_each)


def read_shapes(config: DemoConfig, preset: str) -> tuple[PolicyModel, Params]:
    """The base policy's model and the shapes of its parameters, without reading them; or those of a preset."""
    if preset:
        if preset not in PRESETS:
            raise UsageError(f"unknown model {preset!r}, expected one of {sorted(PRESETS)}")
        model = create_model(PRESETS[preset])
        return model, stored_params(model)
    directory = find_in_repository(config.policy)
    if not (directory / "policy.json").exists():
        raise UsageError(
            f"{config.policy} is no policy yet: make it with `sop weights import`, or name a preset to estimate with, for "
            "example --model pi05"
        )
    content = json.loads((directory / "policy.json").read_text(encoding="utf-8"))
    where: Any = (directory / "params").absolute()
    stored = ocp.PyTreeCheckpointHandler().metadata(where).tree
    params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype),
        stored,
        is_leaf=lambda leaf: hasattr(leaf, "dtype"),
    )
    return create_model(config_from_json(content["model"])), params


def examine(config: DemoConfig, preset: str, devices: DeviceMemory) -> Fit:
    """Estimates the config as it stands. Raises ConfigError if its mesh or its batch doesn't fit the devices' number."""
    model, params = read_shapes(config, preset)
    model, learner, image_size = without_vocabulary(model), config.learning.learner, config.world.image_size

    def estimate(learner: LearnerConfig) -> MemoryEstimate:
        return estimate_memory(model, params, learner, image_size, devices.num_devices)

    fit = Fit(devices, estimate(learner), "")
    if fit.fits:
        return fit
    for change, changed in _thriftier(model, learner, devices.num_devices):
        try:
            if estimate(changed).total <= devices.bytes_each:
                return dataclasses.replace(fit, advice=f"set {change}")
        except ConfigError:
            continue
    return dataclasses.replace(
        fit, advice="no setting of these knobs fits: use more devices, with fsdp over all of them"
    )


def describe(name: str, config: LearnerConfig, fit: Fit) -> list[str]:
    """The table, and the verdict."""
    mesh, gb = config.mesh, 1e9
    lines = [
        f"{name} on {fit.devices.num_devices} x {fit.devices.kind}, {fit.devices.bytes_each / gb:.1f} GB each: mesh "
        f"data={mesh.data} fsdp={mesh.fsdp} tensor={mesh.tensor}, batch {config.batch_size} in {config.accumulate_steps} "
        f"part(s), remat {config.remat}"
    ]
    for field in dataclasses.fields(fit.estimate):
        lines.append(f"  {field.name:<13}{getattr(fit.estimate, field.name) / gb:8.2f} GB on each device")
    lines.append(f"  {'together':<13}{fit.estimate.total / gb:8.2f} GB; activations are an estimate")
    lines.append("It fits." if fit.fits else f"It does not fit: {fit.advice}.")
    return lines


def _thriftier(model: PolicyModel, learner: LearnerConfig, num_devices: int) -> Iterator[tuple[str, LearnerConfig]]:
    """Configs that take less memory, the cheapest changes first: parts, recomputing, then splitting over more devices."""
    parts = [2**power for power in range(1, 12) if learner.batch_size % (learner.accumulate_steps * 2**power) == 0]
    more_parts = [{"accumulate_steps": learner.accumulate_steps * factor} for factor in parts]
    recomputed: list[dict[str, Any]] = []
    if hasattr(model.config, "remat") and learner.remat != "full":
        recomputed = [{"remat": "full"}, *({"remat": "full", **parts} for parts in more_parts)]
    knobs: list[dict[str, Any]] = [*more_parts, *recomputed]
    for knob in knobs:
        yield _say(knob), dataclasses.replace(learner, **knob)
    for fsdp in (2**power for power in range(1, 12)):
        if not learner.mesh.fsdp < fsdp * learner.mesh.tensor <= num_devices:
            continue
        mesh = dataclasses.replace(learner.mesh, data=-1, fsdp=fsdp)
        for knob in ({}, *knobs):
            words = f"mesh.data=-1 mesh.fsdp={fsdp} {_say(knob)}".strip()
            yield words, dataclasses.replace(learner, mesh=mesh, **knob)


def _say(knob: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in knob.items())
