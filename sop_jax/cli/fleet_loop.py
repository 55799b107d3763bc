"""The loop at work: a replay server, a learner and robots as processes, watched until the learner is done."""

import collections
import dataclasses
import socket
import sys
from collections.abc import Callable

from configs.experiment import DemoConfig
from sop_jax.cli.live import LiveView, Screen
from sop_jax.cli.output import progress_console
from sop_jax.cli.processes import ProcessGroup, ProcessSpec
from sop_jax.cli.run_directory import RunDirectory
from sop_jax.episodes.store import EpisodeStore
from sop_jax.evaluation.run_history import RunState
from sop_jax.evaluation.run_metrics import RunReader, totals_of
from sop_jax.evaluation.trial_pool import SINGLE_THREADED
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import SopError

_POLL_S = 0.5
_STOP_S = 10.0
"""How long a process may take to end by itself."""
_KEEP_S = 5.0
"""How much of the loop's time a kill may make forget, at most."""
_MAX_NOTES = 200


class LoopBrokenError(SopError):
    """A process that the loop can't do without died again and again."""


@dataclasses.dataclass(frozen=True)
class LoopProgress:
    """What a run's loop has come to, over all stretches that it was worked at. `elapsed_s` is what it took of `max_loop_s`;
    notes tell what happened to its processes."""

    elapsed_s: float = 0.0
    num_restarts: int = 0
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class LoopEnd:
    """How a stretch of the loop ended: `finished` if it is over for good (steps done, or time up)."""

    finished: bool
    learner_step: int
    progress: LoopProgress


def run_loop(
    config: DemoConfig,
    run: RunDirectory,
    clock: Clock,
    should_stop: Callable[[], bool],
    so_far: LoopProgress,
    keep: Callable[[LoopProgress], None],
) -> LoopEnd:
    """Starts every process, shows the loop live, and stops every process. Blocks.

    `so_far` is what earlier stretches of this run have come to. `keep` is given what to go on from: every few seconds, after
    every restart and however the stretch ends, so that a kill costs seconds. Raises LoopBrokenError.
    """
    started_ns, kept_s = clock.now_ns(), float("-inf")
    reader = RunReader(run.metrics, EpisodeStore(run.store_url))
    notes = collections.deque(so_far.notes, maxlen=_MAX_NOTES)
    robots = [f"robot-{number}" for number in range(config.fleet.num_robots)]
    group = ProcessGroup(clock)

    def progress() -> LoopProgress:
        elapsed_s = so_far.elapsed_s + (clock.now_ns() - started_ns) / 1e9
        return LoopProgress(elapsed_s, so_far.num_restarts + group.num_restarts, tuple(notes))

    try:
        with group, LiveView(progress_console, clock) as view:
            for spec in process_specs(config, run, _free_port()):
                group.start(spec)
            while True:
                elapsed_s = progress().elapsed_s
                events = group.poll()
                for event in events:
                    notes.append(f"{_minutes(elapsed_s)} {event.text}")
                    view.note(notes[-1])
                    if not event.restarted and (event.name not in robots or not any(map(group.running, robots))):
                        raise LoopBrokenError(event.text)
                if events or elapsed_s >= kept_s + _KEEP_S:
                    keep(progress())
                    kept_s = elapsed_s
                state = reader.poll()
                view.show(_screen(config, state, group, robots, elapsed_s, tuple(notes)))
                done = group.finished("learner")
                if done or should_stop() or elapsed_s >= config.max_loop_s:
                    break
                group.wait(_POLL_S)
            finished = done or not should_stop()
            if finished:  # Robots first: they hand in what they recorded. The learner then publishes and checkpoints.
                group.stop(robots, config.fleet.drain_s + _STOP_S, should_stop)
                group.stop(["learner"], _STOP_S, should_stop)
            # Nothing is lost by being killed: episodes wait in the spools, and the last checkpoint is never long ago.
            group.stop(None, _STOP_S, should_stop)
    finally:
        keep(progress())
    reader.poll()
    return LoopEnd(finished, totals_of(reader.history()).learner_steps, progress())


def process_specs(config: DemoConfig, run: RunDirectory, port: int) -> list[ProcessSpec]:
    """Replay server, learner, robots: the same commands that a person would type."""

    def sop(name: str, *words: str, niceness: int = 0, single_threaded: bool = False) -> ProcessSpec:
        return ProcessSpec(
            name=name,
            command=[sys.executable, "-m", "sop_jax.cli.main", *words, "--config", str(run.config), "--store", run.store_url,
                     "--metrics", str(run.metrics), "--metrics-port", "0"],
            log_path=run.log(name),
            environment=SINGLE_THREADED if single_threaded else {},
            max_restarts=config.max_restarts,
            niceness=niceness,
        )  # fmt: skip

    replay = sop("replay", "replay", "--port", str(port), "--owns-store", "--log", str(run.log("reverb")))
    learner = sop(
        "learner", "learn", "--replay", f"localhost:{port}", "--checkpoints", str(run.checkpoints()),
        niceness=config.learning.niceness,
    )  # fmt: skip
    supervision = [] if config.fleet.supervised else ["--unsupervised"]
    robots = [
        sop(
            f"robot-{number}", "act", "--robot-id", f"robot-{number}", "--seed", str(config.seed),
            "--spool", str(run.root / "spool" / f"robot-{number}"), *supervision, single_threaded=True,
        )
        for number in range(config.fleet.num_robots)
    ]  # fmt: skip
    return [replay, learner, *robots]


def _screen(
    config: DemoConfig,
    state: RunState,
    group: ProcessGroup,
    robots: list[str],
    elapsed_s: float,
    notes: tuple[str, ...],
) -> Screen:
    processes = {name: group.describe(name) for name in ("replay", "learner", *robots)}
    return Screen(
        title=config.title,
        state=state,
        processes=processes,
        elapsed_s=elapsed_s,
        limit_s=config.max_loop_s,
        target_steps=config.learning.learner.num_steps,
        notes=notes,
    )


def _free_port() -> int:
    """A port that nobody listens on now. The replay server keeps it over its restarts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _minutes(elapsed_s: float) -> str:
    return f"[{int(elapsed_s) // 60}:{int(elapsed_s) % 60:02d}]"
