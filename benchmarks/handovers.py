"""How smoothly a supervisor takes over from the policy and hands back, without and with easing.

    python -m benchmarks.handovers --json

Plays the shipped policy on its world under the scripted supervisor, who hands back after each stage, once per value of
`--blends` (seconds; 0 = off). Every variant plays the same scenes with the same noise, which are those of no evaluation;
episodes part at the first takeover. Measured on the executed targets of the arms (radians; no grippers), for takeovers
and handbacks apart:

    first step      from the tick before to the first of the new hand, the joint that moves most: largest and root mean square
    largest step    the same over the half second from there on
    jerk            third differences times the control rate cubed that straddle the edge, summed over the joints: rms
    jerk after      the same over the half second from there on

ours = eased with the last of `--blends`, peer = the first: largest first step of takeovers and handbacks [rad];
ratio = peer / ours.
"""

import argparse
import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np

import envs
from sop_jax.actors.episode import EpisodeHeader, RecordingConfig, run_episode
from sop_jax.actors.handover import HandoverConfig
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.actors.seeds import derive_seed
from sop_jax.algorithms.corrections import RecoveryConfig, find_recovery
from sop_jax.evaluation.statistics import wilson_interval
from sop_jax.evaluation.world import EVALUATED_ROBOT, WorldConfig, make_robot
from sop_jax.models.bundle import load_bundle
from sop_jax.robots.scripted_supervisor import ScriptedSupervisor, SupervisorConfig
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.specs.clock import WallClock
from sop_jax.specs.identifiers import make_episode_id
from sop_jax.specs.records import Episode, Outcome

NUM_ARM_DIMS = 14
AFTER_S = 0.5
REWIND_FRAMES = 15  # HG-DAgger's default


@dataclasses.dataclass(frozen=True)
class Edge:
    """One takeover or handback: largest steps of any joint [rad], and the squared jerks around and after it."""

    first_step: float
    largest_step: float
    jerk: np.ndarray
    jerk_after: np.ndarray


def measure_edge(targets: np.ndarray, frame: int, control_hz: float) -> Edge:
    """What the command [T, joints] does where the hand changes between `frame - 1` and `frame`."""
    last = min(len(targets), frame + round(AFTER_S * control_hz))
    steps = np.abs(np.diff(targets[frame - 1 : last], axis=0)).max(axis=1)
    jerks = np.square(np.diff(targets, n=3, axis=0) * control_hz**3).sum(axis=1)
    # The third difference k spans the ticks k .. k + 3; it straddles the edge if it begins before and ends at or after it.
    first = max(0, frame - 3)
    return Edge(float(steps[0]), float(steps.max()), jerks[first:frame], jerks[first : max(first, last - 3)])


def play(robot: SimulatedRobot, policy: PolicyRunner, blend_s: float, seed: int) -> Episode:
    """One supervised episode; images are kept of its first frame only."""
    world = robot.environment
    supervisor = ScriptedSupervisor(
        world, envs.make_expert(world), envs.make_gate(world), SupervisorConfig("hand_back")
    )
    rollout = RolloutConfig(handover=HandoverConfig(blend_s))
    header = EpisodeHeader(make_episode_id(EVALUATED_ROBOT, 1, seed % 10**6), seed)
    recording = RecordingConfig(image_stride=rollout.max_frames)
    return run_episode(robot, policy, supervisor, header, rollout, WallClock(), recording=recording)


def summarise_edges(edges: list[Edge]) -> dict[str, Any]:
    if not edges:
        raise SystemExit("nobody took over, or nobody handed back, in these trials: give more --trials")
    first = np.array([edge.first_step for edge in edges])
    found = {
        "num": len(edges),
        "first_step_max": first.max(),
        "first_step_rms": np.sqrt(np.mean(first**2)),
        "largest_step_max": max(edge.largest_step for edge in edges),
        "jerk_rms": np.sqrt(np.mean(np.concatenate([edge.jerk for edge in edges]))),
        "jerk_after_rms": np.sqrt(np.mean(np.concatenate([edge.jerk_after for edge in edges]))),
    }
    return {name: value if name == "num" else round(float(value), 4) for name, value in found.items()}


def recovery_share(episodes: list[Episode]) -> float:
    """Which share of the human frames HG-DAgger would take for recovery, with its defaults."""
    found = [
        (find_recovery(episode.manifest, episode.arrays, REWIND_FRAMES, RecoveryConfig()), episode.arrays.intervention)
        for episode in episodes
    ]
    return round(sum(int(frames.sum()) for frames, _ in found) / max(1, sum(int(human.sum()) for _, human in found)), 4)


def measure_variant(robot: SimulatedRobot, policy: PolicyRunner, blend_s: float, seeds: list[int]) -> dict[str, Any]:
    started_s = time.perf_counter()
    episodes = [play(robot, policy, blend_s, seed) for seed in seeds]
    edges: dict[str, list[Edge]] = {"takeover": [], "handback": []}
    for episode in episodes:
        targets, control_hz = episode.arrays.action[:, :NUM_ARM_DIMS].astype(np.float64), episode.manifest.control_hz
        for event in episode.manifest.takeovers:
            if event.takeover_frame > 0:
                edges["takeover"].append(measure_edge(targets, event.takeover_frame, control_hz))
            if event.handback_frame < len(targets):
                edges["handback"].append(measure_edge(targets, event.handback_frame, control_hz))
    successes = wilson_interval(sum(e.manifest.outcome is Outcome.SUCCESS for e in episodes), len(episodes))
    return {
        "blend_s": blend_s,
        "num_trials": len(episodes),
        **{name: summarise_edges(found) for name, found in edges.items()},
        "success": successes.value,
        "success_low": round(successes.low, 3),
        "success_high": round(successes.high, 3),
        "frames_per_trial": round(float(np.mean([e.manifest.num_frames for e in episodes])), 1),
        "human_frames_per_trial": round(float(np.mean([e.arrays.intervention.sum() for e in episodes])), 1),
        "recovery_share": recovery_share(episodes),
        "wall_s": round(time.perf_counter() - started_s, 1),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    policy = PolicyRunner.from_bundle(load_bundle(pathlib.Path(options.policy)))
    robot = make_robot(WorldConfig(options.task), WallClock(), EVALUATED_ROBOT)
    policy.warm_up(robot.spec)
    seeds = [derive_seed("handovers", options.seed, trial) for trial in range(options.trials)]
    found = []
    for blend_s in options.blends:
        found.append(measure_variant(robot, policy, blend_s, seeds))
        print(f"blend {blend_s:g} s: {found[-1]}", flush=True)
    robot.close()
    largest = [max(row["takeover"]["first_step_max"], row["handback"]["first_step_max"]) for row in found]
    return {
        "name": "handovers",
        "ours": largest[-1],
        "peer": largest[0],
        "ratio": round(largest[0] / largest[-1], 2),
        "units": f"rad, largest first step; ours eased in {options.blends[-1]:g} s, peer {options.blends[0]:g} s",
        "task": options.task,
        "policy": pathlib.PurePath(options.policy).name,
        "seed": options.seed,
        "max_step_rad": HandoverConfig().max_step_rad,
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
    parser.add_argument("--blends", type=float, nargs="+", default=[0.0, 0.25, 0.5], help="times to ease [s]")
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
