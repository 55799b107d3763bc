"""How good the scripted experts are: fresh episodes, gate alarms in them, and takeovers from states that a bad policy left.

    python -m benchmarks.experts --json --tasks box_assembly --episodes 200 --states 200

`ours` is the success of takeovers and `peer` that of the same expert from a fresh start, so `ratio` is what a bad policy's
mess costs; the top level is the first task's, `tasks` holds all. Takeover states come from `envs.failing`, equally from each
of its policies; episodes that the bad policy itself ended are replaced by the next seed. Brackets are 95% Wilson intervals.
Results depend on the seeds alone, not on the number of workers.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence

import envs
from envs.failing import DONE, FAILING_POLICIES, OVER, take_over
from sop_jax.evaluation.statistics import wilson_interval

FIRST_SEED = 20_000
FRESH = "fresh"
_CHUNK = 20
_TIME_FACTOR = 1.5
"""A takeover may last this many times the task's own time limit, the bad policy's part included."""


@dataclasses.dataclass(frozen=True)
class Ending:
    """How one episode ended: `outcome` as in `envs.failing`, the expert's time, whether the gate objected to the expert."""

    outcome: str
    expert_s: float
    alarm: bool = False


def fresh_episode(env: envs.Environment, seed: int) -> Ending:
    """The expert from the start, watched by the gate."""
    timestep = env.reset(seed)
    expert, gate = envs.make_expert(env, style_seed=seed), envs.make_gate(env)
    expert.reset()
    gate.reset()
    alarm = False
    while not timestep.last():
        timestep = env.step(expert.act())
        alarm |= bool(gate.check())
    return Ending(DONE if env.success() else env.failure_kind(), env.time_s, alarm)


def play(task: str, policy: str, seeds: Sequence[int]) -> list[Ending]:
    """The episodes of these seeds, in this process: fresh ones, or takeovers from a failing policy."""
    if policy == FRESH:
        env = envs.load(task)
        return [fresh_episode(env, seed) for seed in seeds]
    env = envs.load(task, time_limit_s=_TIME_FACTOR * envs.load(task).task.time_limit_s)
    endings = []
    for seed in seeds:
        takeover = take_over(env, envs.make_expert(env, style_seed=seed), FAILING_POLICIES[policy], seed)
        endings.append(Ending(takeover.outcome, takeover.expert_s))
    return endings


def play_elsewhere(task: str, policy: str, seeds: Sequence[int]) -> list[Ending]:
    """As `play`, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.experts", "--play", task, policy, *map(str, seeds)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [Ending(**values) for values in json.loads(result.stdout.splitlines()[-1])]


def collect(task: str, policy: str, num: int, pool: concurrent.futures.Executor) -> list[Ending]:
    """The first `num` episodes, in the order of their seeds, that the bad policy did not end itself."""
    found: list[Ending] = []
    next_seed, num_over = FIRST_SEED, 0
    while len(found) < num:
        missing = num - len(found)
        wanted = missing + round(missing * num_over / max(len(found), 1))
        seeds = range(next_seed, next_seed + wanted)
        next_seed += wanted
        chunks = [seeds[start : start + _CHUNK] for start in range(0, wanted, _CHUNK)]
        for endings in pool.map(lambda chunk: play_elsewhere(task, policy, chunk), chunks):
            num_over += sum(ending.outcome == OVER for ending in endings)
            found += [ending for ending in endings if ending.outcome != OVER]
            sys.stderr.write(f"\r{task}, {policy}: {min(len(found), num)} of {num}   ")
    sys.stderr.write("\n")
    return found[:num]


def summarise(endings: Sequence[Ending]) -> dict:
    num_done = sum(ending.outcome == DONE for ending in endings)
    interval = wilson_interval(num_done, len(endings))
    failures = collections.Counter(ending.outcome for ending in endings if ending.outcome != DONE)
    return {
        "success": round(interval.value, 4),
        "success_low": round(interval.low, 4),
        "success_high": round(interval.high, 4),
        "num": len(endings),
        "mean_s": round(sum(ending.expert_s for ending in endings) / len(endings), 2),
        "failures": dict(failures.most_common()),
    }


def measure(task: str, num_episodes: int, num_states: int, pool: concurrent.futures.Executor) -> dict:
    """Everything about one task's expert."""
    fresh = collect(task, FRESH, num_episodes, pool)
    num_alarms = sum(ending.alarm for ending in fresh if ending.outcome == DONE)
    names, by_policy = tuple(FAILING_POLICIES), {}
    for index, name in enumerate(names):
        share = num_states // len(names) + (index < num_states % len(names))
        by_policy[name] = collect(task, name, share, pool)
    takeovers = summarise([ending for endings in by_policy.values() for ending in endings])
    from_start = summarise(fresh)
    return {
        "ours": takeovers["success"],
        "peer": from_start["success"],
        "ratio": round(takeovers["success"] / max(from_start["success"], 1e-9), 3),
        "fresh": from_start | {"num_alarms": num_alarms},
        "takeover": takeovers,
        "takeover_from": {name: summarise(endings) for name, endings in by_policy.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Success of the scripted experts, fresh and taking over.")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--tasks", nargs="*", default=envs.TASKS, choices=envs.TASKS, help="default: all")
    parser.add_argument("--episodes", type=int, default=200, help="fresh episodes per task")
    parser.add_argument("--states", type=int, default=200, help="takeovers per task")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 = one per usable core")
    parser.add_argument("--play", nargs="+", metavar="TASK POLICY SEED", help="play these episodes here, and end")
    options = parser.parse_args()
    if options.play:
        task, policy, *seeds = options.play
        print(json.dumps([dataclasses.asdict(ending) for ending in play(task, policy, [int(seed) for seed in seeds])]))
        return
    workers = options.workers or len(os.sched_getaffinity(0))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        tasks = {task: measure(task, options.episodes, options.states, pool) for task in options.tasks}
    result = {
        "name": "experts",
        "units": "share of takeovers that succeed; peer: the same expert from a fresh start",
        **tasks[options.tasks[0]],
        "tasks": tasks,
    }
    if not options.json:
        for task, values in tasks.items():
            for what in ("fresh", "takeover"):
                print(f"{task:>20} {what:>9}  {values[what]}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
