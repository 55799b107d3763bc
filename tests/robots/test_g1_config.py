import math

import pytest

from sop_jax.robots.g1.config import (
    MAX_STEP_RAD,
    CameraConfig,
    G1RobotConfig,
    GripperCalibration,
    LimitsConfig,
    PostureConfig,
    TimingConfig,
    UnitsConfig,
)
from sop_jax.robots.two_arm import ACTION_HIGH, ACTION_LOW
from sop_jax.specs.errors import ConfigError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GripperCalibration(state_open=1.0), "open and closed must be finite and differ"),
        (lambda: UnitsConfig(head_state="degrees"), "head_state must be one of"),
        (lambda: CameraConfig("head", "head", 100, 100, 224, 224), "must not be larger than frames"),
        (lambda: PostureConfig(lift_m=20.0), "lift_m must be 0.0 .. 0.5"),
        (lambda: PostureConfig(head_pitch_rad=26.3), "head_pitch_rad must be"),
        (lambda: LimitsConfig(max_step_rad=0.3), "max_step_rad must be"),
        (lambda: LimitsConfig(max_speed=math.inf), "max_speed must be positive and finite"),
        (lambda: LimitsConfig(low=(-4.0, *ACTION_LOW[1:])), "may only be narrower"),
        (lambda: LimitsConfig(high=ACTION_HIGH[:14]), "must have 16 values"),
        (lambda: LimitsConfig(workspace_low_m=(2.0, -1.0, 0.0)), "must lie below"),
        (lambda: TimingConfig(command_late_s=0.01), "must exceed a control period"),
        (lambda: TimingConfig(give_up_s=0.1), "must exceed command_late_s"),
        (lambda: G1RobotConfig(arms=()), "arms must name"),
        (lambda: G1RobotConfig(arms=("left", "left")), "arms must name"),
        (lambda: G1RobotConfig(cameras=()), "cameras must be of"),
        (lambda: G1RobotConfig(start_rad=(0.0,) * 7), "must have 14 joints"),
        (lambda: G1RobotConfig(start_rad=(3.2, *[0.0] * 13)), "start_rad must be"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_defaults_are_the_published_limits():
    config = G1RobotConfig()
    assert (config.limits.low, config.limits.high) == (ACTION_LOW, ACTION_HIGH)
    assert config.limits.max_step_rad == MAX_STEP_RAD == 0.2618
    assert config.timing.period_ns == 33_333_333
    assert not config.dry_run
