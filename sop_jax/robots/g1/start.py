"""From where the robot stands to where its episodes start: posture first, then the arms, slowly.

Lift, waist and head move at the robot's own pace, and nothing checks what they meet on the way. So whoever watches can end
it: see `go_to_start`.
"""

import contextlib
from collections.abc import Callable

import numpy as np

from sop_jax.robots.g1.body import G1Body
from sop_jax.robots.g1.config import NUM_ARM_JOINTS, G1RobotConfig, PostureConfig
from sop_jax.robots.g1.faults import G1Fault, PostureError
from sop_jax.robots.g1.link import BodyState
from sop_jax.robots.g1.posture import find_deviations
from sop_jax.robots.g1.safety import SIDES
from sop_jax.specs.clock import Clock

START_SPEED = 0.5
"""rad/s of the joint that has furthest to go."""

_ARRIVED_RAD = 0.03


def unwatched() -> None:
    """The `watch` of a way to the start that nobody stops."""


def go_to_start(config: G1RobotConfig, body: G1Body, clock: Clock, watch: Callable[[], None] = unwatched) -> BodyState:
    """Brings the robot to its start and returns the states there. Blocks.

    `watch` is called on every tick of the way, before the robot is commanded. What it raises ends the way: the arms are held
    where they were sent last, lift, waist and head are sent to where they are measured, and it is raised here.

    Raises:
        PostureError: lift, waist, head or arms are not where they should be, and don't get there.
        G1Fault: whatever else goes wrong on the way.
    """
    state = body.read_state()
    deadline_ns = clock.now_ns() + round(config.timing.reset_s * 1e9)
    if config.posture.commanded and not config.dry_run:
        state = _bring_posture(config.posture, body, clock, deadline_ns, watch)
    _check_posture(config.posture, state)
    if config.start_rad is not None and not config.dry_run:
        state = _bring_arms(config, np.array(config.start_rad), body, clock, deadline_ns, watch)
    return state


def _bring_posture(
    posture: PostureConfig, body: G1Body, clock: Clock, deadline_ns: int, watch: Callable[[], None]
) -> BodyState:
    watch()
    state = body.read_state()
    try:
        body.send_posture(
            np.array([posture.head_yaw_rad, posture.head_pitch_rad]),
            np.array([posture.waist_pitch_rad, posture.lift_m]),
        )
        state = body.read_state()
        while find_deviations(posture, state) and clock.now_ns() < deadline_ns:
            watch()
            body.hold()
            clock.sleep_s(body.period_s)
            state = body.read_state()
        _check_posture(posture, state)
    except BaseException:
        # Its goal was sent once and is still on its way there: only another goal stops it.
        with contextlib.suppress(G1Fault):
            body.send_posture(state.head, state.waist)
        raise
    return state


def _check_posture(posture: PostureConfig, state: BodyState) -> None:
    """Raises PostureError."""
    if found := find_deviations(posture, state):
        raise PostureError(
            f"{'; '.join(found)}. The safety check stands on this posture: bring the robot there, set "
            "PostureConfig.commanded, or correct the units (UnitsConfig) if the robot stands right"
        )


def _bring_arms(
    config: G1RobotConfig,
    goal: np.ndarray,
    body: G1Body,
    clock: Clock,
    deadline_ns: int,
    watch: Callable[[], None],
) -> BodyState:
    """Along a straight line of joint space, at the pace of the slowest joint. Arms that aren't ours stay."""
    state = body.read_state()
    ours = np.zeros(NUM_ARM_JOINTS, bool)
    for side in config.arms:
        ours[SIDES[side][0]] = True
    goal = np.where(ours, goal, state.arms)
    target = state.vector
    while (apart := float(np.abs(goal - state.arms).max())) > _ARRIVED_RAD:
        if clock.now_ns() >= deadline_ns:
            raise PostureError(
                f"arms are {apart:.3f} rad from their start after {config.timing.reset_s} s; the way is blocked (see "
                "g1_breach events): bring them nearer by hand"
            )
        watch()
        left = goal - target[:NUM_ARM_JOINTS]
        share = min(1.0, START_SPEED * body.period_s / max(1e-9, float(np.abs(left).max())))
        target[:NUM_ARM_JOINTS] += share * left
        body.move(target)
        clock.sleep_s(body.period_s)
        state = body.read_state()
    return state
