"""What does one more robot cost on wall time, and how many hold their real rate on this machine?

    python -m benchmarks.wall_fleet --json

Beside a real Reverb server and a learner (with intake) at a step a second: fleets of rising size whose bodies are worlds
(restock_shelf, three 64-pixel cameras, compact policy, 10 of 30 frames per second kept, one thread;
`fleet_sim/live_crowd.py`), then fleets that live recorded episodes again (`fleet_sim/crowd.py`). Costs are processor time of
the robots' own process, which other work on the machine disturbs least.

ours = processor milliseconds that a world robot's second costs, in the largest fleet; peer = the bare sum of its parts in the
same process, over an expert's episode: physics, images, its share of the policy's calls, JPEGs; ratio = ours / peer. What the
ratio adds: gates, people who take over, the recorder, resets, packing, the spool, the upload, new weights.
`holds`: the largest fleet that kept 99% of real time with the 99th percentile of lateness within a tick; 0 = none of them.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import envs
from fleet_sim.bodies import make_cast
from fleet_sim.crew_worker import WorkerSettings
from fleet_sim.crowd import Crowd, CrowdSettings
from fleet_sim.live_crowd_process import LiveCrowdSettings, LiveProcess
from fleet_sim.replayed import Recordings
from fleet_sim.wall_learner import LearnerSettings
from fleet_sim.wall_processes import FINISH, READY, FleetProcess, WallOrder
from sop_jax.actors.chunk_player import ChunkRequest
from sop_jax.actors.episode import EpisodeHeader, RecordingConfig, run_episode
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.episodes.images import encode_image
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.evaluation.trial_pool import SINGLE_THREADED
from sop_jax.evaluation.world import WorldConfig
from sop_jax.models.bundle import load_bundle
from sop_jax.replay.server import ReverbServer
from sop_jax.replay.tables import mix_tables
from sop_jax.robots.scripted_supervisor import SupervisorConfig
from sop_jax.specs.clock import WallClock
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.identifiers import make_episode_id
from sop_jax.specs.records import NO_POLICY, Episode, Observation, Source

TASK, HZ, RESET_S = "restock_shelf", 30.0, 2.0
POLICY = pathlib.Path(__file__).parents[1] / "assets" / "policies" / "restock_compact"
_HELD_FACTOR = 0.99


def live_fleet(num_robots: int, duration_s: float, store: str, spools: pathlib.Path) -> dict[str, Any]:
    """Robots with bodies for so long, after everything is made."""
    worker = WorkerSettings(
        str(POLICY), store, str(spools), WorldConfig(TASK), RolloutConfig(), RecordingConfig(), SupervisorConfig(),
        Conditioning(),
    )  # fmt: skip
    rows = max(1, num_robots // worker.rollout.execute_steps)
    settings = LiveCrowdSettings(
        worker, TASK, tuple(f"live-{num_robots}-{number}" for number in range(num_robots)),
        tuple(RESET_S * number / num_robots for number in range(num_robots)), RESET_S, rows, num_threads=1,
    )  # fmt: skip
    with contextlib.closing(LiveProcess(settings, WallClock())) as process:
        report = process.run(WallOrder(time.time_ns(), duration_s))
    ticks = report.ticks
    held = ticks.real_time_factor >= _HELD_FACTOR and ticks.late_p99_s <= 1 / HZ
    return {
        "robots": num_robots,
        "episodes": report.num_episodes,
        "cpu_ms_per_robot_s": ticks.cpu_ms_per_robot_s,
        "cpu_share": ticks.cpu_s / ticks.wall_s,
        "robot_s": ticks.robot_s,
        "real_time_factor": ticks.real_time_factor,
        "late_share": ticks.late_share,
        "late_p50_ms": 1e3 * ticks.late_p50_s,
        "late_p99_ms": 1e3 * ticks.late_p99_s,
        "held": held,
        "rows_per_call": report.policy.num_requests / max(1, report.policy.num_batches),
    }


def replayed_fleet(num_robots: int, duration_s: float, store: str, episodes: Sequence[Episode]) -> dict[str, Any]:
    settings = CrowdSettings(
        "", store, TASK, tuple(f"replayed-{num_robots}-{number}" for number in range(num_robots)),
        tuple(RESET_S * number / num_robots for number in range(num_robots)), time.time_ns(), duration_s, RESET_S,
    )  # fmt: skip
    began_s = time.process_time()
    report = Crowd(settings, Recordings(episodes), WallClock()).run()
    cpu_s = time.process_time() - began_s
    robot_s = sum(episode.manifest.num_frames for episode in episodes) / len(episodes) / HZ * report.num_episodes
    return {
        "robots": num_robots,
        "episodes": report.num_episodes,
        "cpu_ms_per_robot_s": 1e3 * cpu_s / max(robot_s, 1.0),
        "mean_late_ms": 1e3 * report.mean_late_s,
        "max_late_ms": 1e3 * report.max_late_s,
    }


def parts(episode: Episode, rows: int) -> dict[str, float]:
    """Processor milliseconds per robot second of what can't be left out, over an episode's own actions."""
    stride, every = RecordingConfig().image_stride, RolloutConfig().execute_steps
    environment = envs.load(TASK)
    spent: dict[str, float] = dict.fromkeys(("physics", "images", "jpegs"), 0.0)
    views: list[dict[str, Any]] = []

    def timed(part: str, began_s: float) -> None:
        spent[part] += time.process_time() - began_s

    environment.reset(episode.manifest.seed)
    environment.render()
    for frame, action in enumerate(episode.arrays.action):
        if frame % stride == 0 or frame % every == 0:
            began_s = time.process_time()
            views.append(environment.render())
            timed("images", began_s)
        if frame % stride == 0:
            began_s = time.process_time()
            for image in views[-1].values():
                encode_image(image)
            timed("jpegs", began_s)
        began_s = time.process_time()
        environment.step(action)
        timed("physics", began_s)
    environment.close()
    robot_s = episode.manifest.num_frames / HZ
    found = {part: 1e3 * cpu_s / robot_s for part, cpu_s in spent.items()}
    state = episode.arrays.state[0]
    requests = [
        ChunkRequest(Observation(views[row % len(views)], state, episode.manifest.instruction, 0), row)
        for row in range(rows)
    ]
    return {**found, "policy": _policy_ms(requests) * HZ / every}


def _policy_ms(requests: list[ChunkRequest], num_calls: int = 20) -> float:
    """Per row."""
    runner = PolicyRunner.from_bundle(load_bundle(POLICY))
    runner.infer_rows(requests, len(requests))
    began_s = time.process_time()
    for _ in range(num_calls):
        runner.infer_rows(requests, len(requests))
    return 1e3 * (time.process_time() - began_s) / num_calls / len(requests)


def expert_episode() -> Episode:
    """What the parts are measured over."""
    clock = WallClock()
    cast = make_cast(WorldConfig(TASK), clock, "parts", SupervisorConfig())
    header = EpisodeHeader(make_episode_id("parts", 0, 0), seed=0, source=Source.OFFLINE)
    with contextlib.closing(cast.robot):
        return run_episode(cast.robot, None, None, header, RolloutConfig(), clock, expert=cast.expert)


def measure(options: argparse.Namespace, root: pathlib.Path) -> dict[str, Any]:
    store = f"file://{(root / 'store').absolute()}/"
    for seed in range(4):
        EpisodeStore(store).put(make_episode(seed, 90, source=Source.OFFLINE, policy_version=NO_POLICY))
    learner_settings = LearnerSettings(
        str(POLICY),
        store,
        "",
        {TASK: max(options.worlds)},
        steps_per_s=1.0,
        batch_size=16,
        publish_every=10,
        warm_steps=2,
    )
    with ReverbServer(mix_tables([TASK]), log_path=root / "logs" / "reverb.log") as server:
        told = dataclasses.replace(learner_settings, replay=server.address)
        with FleetProcess("learner", "wall_learner", told, root) as learner:
            while learner.poll() != READY:
                time.sleep(0.05)
            learner.tell_order(WallOrder(time.time_ns(), 3600.0))
            os.environ.update(SINGLE_THREADED)  # of the robots from here on, as in `sop fleet`
            live = [live_fleet(number, options.seconds, store, root / "spool") for number in options.worlds]
            recorded = [make_episode(seed, round(10 * HZ)) for seed in range(4)]
            replayed = [
                replayed_fleet(number, max(options.seconds, 12.0), store, recorded) for number in options.replayed
            ]
            learner.stop()
            learner.tell(FINISH)
            while (report := learner.poll()) is None:
                time.sleep(0.05)
    bare = parts(expert_episode(), max(1, max(options.worlds) // RolloutConfig().execute_steps))
    return {"live": live, "replayed": replayed, "parts": bare, "learner": report}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line (always done)")
    parser.add_argument(
        "--worlds", type=int, nargs="+", default=[2, 4, 8], help="sizes of the fleets with bodies, rising"
    )
    parser.add_argument("--replayed", type=int, nargs="+", default=[50, 200], help="sizes of the replayed fleets")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each fleet; replayed ones take 12 at least")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, pathlib.Path(folder))
    ours, peer = found["live"][-1]["cpu_ms_per_robot_s"], sum(found["parts"].values())
    learner = found["learner"]
    print(
        json.dumps(
            {
                "name": "wall_fleet",
                "ours": round(ours, 2),
                "peer": round(peer, 2),
                "ratio": round(ours / peer, 3),
                "units": "processor ms per second of a robot with a body; peer: physics, images, policy and JPEGs alone",
                "holds": max((fleet["robots"] for fleet in found["live"] if fleet["held"]), default=0),
                "parts": _rounded(found["parts"]),
                "worlds": [_rounded(fleet) for fleet in found["live"]],
                "replayed": [_rounded(fleet) for fleet in found["replayed"]],
                "learner_steps": learner["num_steps"],
                "learner_late_s": round(learner["max_late_s"], 3),
                "taken_in": learner["num_settled"],
            }
        )
    )
    return 0


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}


if __name__ == "__main__":
    sys.exit(main())
