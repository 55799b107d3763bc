"""Trials for people to watch: one mp4 each, and a contact sheet of all.

Legend: `h w` pixels of one picture.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import matplotlib.figure
import numpy as np
from jaxtyping import UInt8

import envs
from envs.film import Film
from sop_jax.actors.episode import TrialResult
from sop_jax.actors.robot_wrapper import RobotWrapper
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.evaluation.evaluate import SIDE_BY_SIDE, Candidate
from sop_jax.evaluation.trials import SideBySide, Workplace
from sop_jax.evaluation.worker import load_policy
from sop_jax.evaluation.world import EVALUATED_ROBOT, WorldConfig, make_robot
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.specs.clock import Clock

Picture = UInt8[np.ndarray, "h w 3"]

SHEET_COLUMNS = 8
_SHEET_INCHES = (2.4, 2.05)  # of one picture with its caption


class FilmedRobot(RobotWrapper[SimulatedRobot]):
    """A simulated robot with a camera team: a picture after reset and after every tick."""

    def __init__(self, robot: SimulatedRobot):
        super().__init__(robot)
        self._film = Film(robot.environment)
        self.pictures: list[Picture] = []
        self.stages: list[str] = []

    @property
    def stage_names(self) -> tuple[str, ...]:
        return self._robot.stage_names

    def stage(self) -> str:
        return self._robot.stage()

    def reset(self, seed: int) -> None:
        self._robot.reset(seed)
        self.pictures, self.stages = [], []
        self._take()

    def apply(self, action: np.ndarray) -> np.ndarray:
        executed = self._robot.apply(action)
        self._take()
        return executed

    def close(self) -> None:
        self._film.close()
        self._robot.close()

    def _take(self) -> None:
        self.pictures.append(self._film.take())
        self.stages.append(self._robot.environment.stage())


@dataclasses.dataclass(frozen=True)
class Take:
    """One filmed trial: pictures with the ticks and stages at which they were taken, the first before the first action."""

    instruction: str
    result: TrialResult
    pictures: tuple[Picture, ...]
    stages: tuple[str, ...]
    ticks: tuple[int, ...]
    control_hz: float

    def thinned(self, columns: int) -> "Take":
        """Only the pictures that a contact sheet shows: a whole trial's are hundreds of megabytes."""
        kept = spread(len(self.pictures), columns)
        pick = [(self.pictures[index], self.stages[index], self.ticks[index]) for index in kept]
        pictures, stages, ticks = zip(*pick, strict=True)
        return dataclasses.replace(self, pictures=pictures, stages=stages, ticks=ticks)


def film_trials(
    candidate: Candidate,
    world: WorldConfig,
    rollout: RolloutConfig,
    clock: Clock,
    seeds: Sequence[int],
    side_by_side: int = SIDE_BY_SIDE,
) -> Iterator[Take]:
    """Runs trials with a camera team: the trials of these seeds, as `evaluate_worlds` runs them."""
    plain = make_robot(world, clock, EVALUATED_ROBOT)
    robot = FilmedRobot(plain)
    try:
        policy, expert = None, None
        if candidate.is_expert:
            expert = envs.make_expert(plain.environment)
        else:
            policy = load_policy(candidate, rollout.chunking)
        trials = SideBySide(lambda _: Workplace(robot, expert), policy, rollout, clock, side_by_side)
        for seed in seeds:
            result = trials.run(seed)
            pictures, stages = tuple(robot.pictures), tuple(robot.stages)
            ticks = tuple(range(len(pictures)))
            yield Take(robot.instruction, result, pictures, stages, ticks, robot.spec.control_hz)
    finally:
        robot.close()


def write_video(take: Take, path: pathlib.Path) -> None:
    """An mp4 (H.264) at the robot's own speed."""
    height, width, _ = take.pictures[0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(take.control_hz).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in take.pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def write_contact_sheet(takes: Sequence[Take], path: pathlib.Path, columns: int = SHEET_COLUMNS) -> None:
    """A picture with a row per trial: evenly spaced moments with time and stage, below what was asked and what came of it."""
    width, height = _SHEET_INCHES
    figure = matplotlib.figure.Figure(figsize=(width * columns, height * len(takes)), layout="constrained")
    rows = figure.subfigures(len(takes), 1, squeeze=False)[:, 0]
    for row, take in zip(rows.tolist(), takes, strict=True):
        row.suptitle(f"{take.instruction}: {describe_end(take.result)}", fontsize=11, x=0.005, ha="left")
        axes = row.subplots(1, columns)
        for ax, index in zip(axes, spread(len(take.pictures), columns), strict=True):
            ax.imshow(take.pictures[index])
            ax.set_title(f"{take.ticks[index] / take.control_hz:.1f} s  {take.stages[index]}", fontsize=8, pad=2)
            ax.axis("off")
    figure.savefig(path, dpi=100)


def describe_end(result: TrialResult) -> str:
    """For example "success after 3.2 s" or "failure (dropped) after 2.0 s, furthest stage: move"."""
    kind = f" ({result.failure_kind})" if result.failure_kind else ""
    stage = f", furthest stage: {result.furthest_stage}" if result.furthest_stage and not result.success else ""
    return f"{result.outcome}{kind} after {result.duration_s:.1f} s{stage}"


def spread(num: int, count: int) -> list[int]:
    """`count` indices from the first to the last of `num`, evenly spaced; repeated if there are fewer."""
    return [round(index) for index in np.linspace(0, num - 1, count)]
