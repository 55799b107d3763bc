"""How smoothly one chunk of actions follows another when inference takes time, and what that does to success.

    python -m benchmarks.chunk_borders --json

Plays the shipped policy on its world, with chunks that arrive `delay` ticks after their observation, sampled afresh
("plain") or continuing the chunk under way ("guided": real-time chunking at inference time). Every variant plays the same
scenes with the same noise; their seeds are those of no evaluation. Measured on the commanded joint targets of the arms
(radians; no grippers): the step from one tick to the next, and the jerk (third difference times the control rate cubed).
A step belongs to a border if a new chunk began with it; a third difference if a border lies within its four ticks.

ours = guided with the first of `--weights`, peer = plain, both at the largest delay: root mean square jerk at borders
[rad/s^3]; ratio = peer / ours.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np

from sop_jax.actors.chunk_player import ChunkPlayer
from sop_jax.actors.chunking import ChunkingConfig
from sop_jax.actors.pilot import FrameLabel, PolicyPilot
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.actors.rollout import RolloutConfig, roll_out
from sop_jax.actors.seeds import derive_seed
from sop_jax.evaluation.statistics import wilson_interval
from sop_jax.evaluation.world import EVALUATED_ROBOT, WorldConfig, make_robot
from sop_jax.models.bundle import PolicyBundle, load_bundle
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.specs.clock import WallClock
from sop_jax.specs.records import Observation, Outcome

NUM_ARM_DIMS = 14


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way of following one chunk by another."""

    mode: str
    delay: int
    max_guidance_weight: float = 5.0

    @property
    def name(self) -> str:
        weight = f" {self.max_guidance_weight:g}" if self.mode == "guided" else ""
        return f"{self.mode}{weight}, d = {self.delay}"

    @property
    def rollout(self) -> RolloutConfig:
        chunking = ChunkingConfig(self.mode, max_guidance_weight=self.max_guidance_weight)  # pyright: ignore[reportArgumentType]
        return RolloutConfig(inference_delay_frames=self.delay, chunking=chunking)


class BorderLog:
    """A frame sink that keeps the commanded arm targets, and on which ticks a new chunk began."""

    def __init__(self, pilot: PolicyPilot):
        self._pilot = pilot
        self._num_chunks = 0
        self.targets: list[np.ndarray] = []
        self.borders: list[bool] = []

    def keeps_images(self, frame: int) -> bool:
        del frame
        return False

    def add(self, observation: Observation, action: np.ndarray, label: FrameLabel) -> None:
        del observation, label
        num_chunks = self._pilot.chunk_stats.num_chunks
        # The first chunk follows no other: the robot stood still.
        self.borders.append(num_chunks > max(1, self._num_chunks))
        self._num_chunks = num_chunks
        self.targets.append(action[:NUM_ARM_DIMS])


def measure_motion(targets: np.ndarray, borders: np.ndarray, control_hz: float) -> dict[str, np.ndarray]:
    """Squared steps [rad^2] and jerks [rad^2/s^6], summed over the joints, at borders and inside chunks."""
    steps = np.square(np.diff(targets, axis=0)).sum(axis=1)
    jerks = np.square(np.diff(targets, n=3, axis=0) * control_hz**3).sum(axis=1)
    step_at_border = borders[1:]
    # The third difference of ticks k .. k + 3 straddles a border if a chunk began with k + 1, k + 2 or k + 3.
    jerk_at_border = borders[1:-2] | borders[2:-1] | borders[3:]
    return {
        "step_border": steps[step_at_border],
        "step_inside": steps[~step_at_border],
        "jerk_border": jerks[jerk_at_border],
        "jerk_inside": jerks[~jerk_at_border],
    }


def play_trial(
    robot: SimulatedRobot, policy: PolicyRunner, variant: Variant, seed: int
) -> tuple[Outcome, dict[str, np.ndarray], int]:
    """Outcome, motion and held ticks of one unrecorded episode."""
    config, spec = variant.rollout, robot.spec
    continues = config.chunking.mode != "none"
    player = ChunkPlayer(
        policy, seed, spec.action_dim, config.execute_steps, config.inference_delay_frames, continues=continues
    )
    pilot = PolicyPilot(player, None, 0)
    log = BorderLog(pilot)
    robot.reset(seed)
    with contextlib.closing(pilot):
        report = roll_out(robot, pilot, log, config, WallClock())
    # Before the first chunk the robot stands where it was measured, not where it was told to be.
    first = variant.delay
    targets, borders = np.array(log.targets[first:]), np.array(log.borders[first:])
    motion = measure_motion(targets, borders, spec.control_hz) if len(targets) > 4 else {}
    return report.end.outcome, motion, report.chunks.num_held_ticks


def measure_variant(bundle: PolicyBundle, robot: SimulatedRobot, variant: Variant, seeds: list[int]) -> dict[str, Any]:
    """Figures of one variant over all seeds."""
    policy = PolicyRunner.from_bundle(bundle, variant.rollout.chunking)
    policy.warm_up(robot.spec)
    started_s = time.perf_counter()
    trials = [play_trial(robot, policy, variant, seed) for seed in seeds]
    motions = [motion for _, motion, _ in trials if motion]
    rms = {
        name: float(np.sqrt(np.mean(np.concatenate([motion[name] for motion in motions]))))
        for name in ("step_border", "step_inside", "jerk_border", "jerk_inside")
    }
    interval = wilson_interval(sum(outcome is Outcome.SUCCESS for outcome, _, _ in trials), len(trials))
    return {
        "mode": "plain" if variant.mode == "none" else variant.mode,
        "max_guidance_weight": variant.max_guidance_weight if variant.mode == "guided" else None,
        "delay_ticks": variant.delay,
        "num_trials": len(trials),
        "success": interval.value,
        "success_low": round(interval.low, 3),
        "success_high": round(interval.high, 3),
        **{f"{name}_rms": round(value, 5) for name, value in rms.items()},
        "jerk_ratio": round(rms["jerk_border"] / rms["jerk_inside"], 2),
        "held_ticks_per_trial": round(float(np.mean([held for _, _, held in trials])), 2),
        "wall_s": round(time.perf_counter() - started_s, 1),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    bundle = load_bundle(pathlib.Path(options.policy))
    robot = make_robot(WorldConfig(options.task), WallClock(), EVALUATED_ROBOT)
    seeds = [derive_seed("chunk_borders", options.seed, trial) for trial in range(options.trials)]
    variants = [Variant("none", delay) for delay in options.delays]
    variants += [Variant("guided", delay, weight) for weight in options.weights for delay in options.delays]
    if getattr(bundle.config, "max_training_delay", 0):
        variants += [Variant("trained", delay) for delay in options.delays]
    found = []
    for variant in variants:
        found.append(measure_variant(bundle, robot, variant, seeds))
        print(f"{variant.name}: {found[-1]}", flush=True)
    robot.close()
    last: dict[str, float] = {}
    for row in found:  # The first weight stands for "guided".
        if row["delay_ticks"] == max(options.delays):
            last.setdefault(row["mode"], row["jerk_border_rms"])
    return {
        "name": "chunk_borders",
        "ours": last["guided"],
        "peer": last["plain"],
        "ratio": round(last["plain"] / last["guided"], 3),
        "units": f"rad/s^3, rms jerk at chunk borders, d = {max(options.delays)}; ours guided, peer plain",
        "task": options.task,
        "policy": pathlib.PurePath(options.policy).name,
        "seed": options.seed,
        "execute_steps": RolloutConfig().execute_steps,
        "variants": found,
        "device": jax.devices()[0].device_kind,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line (always done)")
    parser.add_argument("--trials", type=int, default=40, help="trials of each variant (default 40)")
    parser.add_argument("--seed", type=int, default=0, help="which scenes")
    parser.add_argument("--task", default="restock_shelf")
    parser.add_argument("--policy", default="assets/policies/restock_compact", help="a policy directory")
    parser.add_argument("--delays", type=int, nargs="+", default=[0, 2, 4], help="inference delays [ticks]")
    parser.add_argument("--weights", type=float, nargs="+", default=[1.0, 5.0], help="largest guidance weights")
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
