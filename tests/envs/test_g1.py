"""The robot: forward kinematics against published numbers, limits, servos, cameras."""

import mujoco
import numpy as np
import pytest

from envs.errors import InvalidActionError
from envs.g1.arm_ik import ArmIk, tool_rotation
from envs.g1.config import G1Config
from envs.g1.drive import MAX_STEP_RAD, STATE_DIM, G1Drive
from envs.g1.kinematics import load_kinematics
from envs.g1.robot import G1
from envs.restock.hand_pose import READY_RAD, READY_TOOL_M, hand_rotation


@pytest.fixture(scope="module")
def robot() -> tuple[mujoco.MjModel, G1Drive]:
    model = mujoco.MjModel.from_xml_string(G1().mjcf_model.to_xml_string())
    model.opt.timestep, model.opt.integrator = 1 / 150, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    return model, G1Drive(model, prefix="")


@pytest.fixture
def home_state() -> np.ndarray:
    home = load_kinematics().home
    return np.concatenate([home.left_arm_rad, home.right_arm_rad, (0.0, 0.0)])


def test_home_pose_puts_tools_flanges_and_head_where_the_vendor_has_them(robot, home_state):
    model, drive = robot
    data = mujoco.MjData(model)
    drive.place(data, home_state)
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.site("left_tcp").xpos, (0.624, 0.160, 0.786), atol=0.002)
    np.testing.assert_allclose(data.site("right_tcp").xpos, (0.624, -0.160, 0.786), atol=0.003)
    np.testing.assert_allclose(data.body("arm_l_end_link").xpos, (0.599, 0.300, 0.802), atol=0.002)
    np.testing.assert_allclose(data.body("head_link2").xpos, (0.418, 0.0, 1.082), atol=0.002)


def test_head_camera_sees_both_tools_at_home_where_the_real_image_has_them(robot, home_state):
    model, drive = robot
    data = mujoco.MjData(model)
    drive.place(data, home_state)
    mujoco.mj_forward(model, data)
    camera = load_kinematics().head_camera
    rotation = data.cam("head").xmat.reshape(3, 3)
    pixels = []
    for side in ("left", "right"):
        x, y, z = rotation.T @ (data.site(f"{side}_tcp").xpos - data.cam("head").xpos)
        pixels.append((640 + camera.fx * x / -z, 360 - camera.fy * y / -z))
    np.testing.assert_allclose(pixels, [(210, 437), (985, 427)], atol=8)
    assert model.cam("head").fovy[0] == pytest.approx(58.4, abs=0.1)


def test_limits_and_masses_are_the_published_ones(robot):
    model, drive = robot
    np.testing.assert_allclose(drive.upper[:7], (3.14, 1.48, 3.1, 1.48, 3.1, 1.74, 3.1))
    np.testing.assert_allclose(drive.lower[7:14], (-3.14, -1.48, -3.1, -1.48, -3.1, -1.74, -3.1))
    assert model.body("arm_r_link2").mass[0] == pytest.approx(0.41662)
    fingers = 2 * sum(load_kinematics().finger_mass_kg.values())
    links = sum(inertial.mass_kg for inertial in load_kinematics().inertials.values())
    assert model.body_mass.sum() == pytest.approx(links + fingers)
    assert model.nu == STATE_DIM


def test_a_far_command_is_clipped_and_the_joint_never_exceeds_its_rated_speed(robot, home_state):
    model, drive = robot
    data = mujoco.MjData(model)
    drive.place(data, home_state)
    mujoco.mj_forward(model, data)
    target = home_state.copy()
    target[0], target[14] = 3.0, 1.0
    executed = drive.command(data, target)
    assert executed.dtype == np.float32
    assert executed[0] == pytest.approx(home_state[0] + MAX_STEP_RAD)
    fastest = 0.0
    for _ in range(20):
        drive.command(data, target)
        mujoco.mj_step(model, data, 5)
        fastest = max(fastest, float(np.abs(data.qvel[:14]).max()))
    assert 2.0 < fastest < 3.14 * 1.03
    assert drive.closure(data, "left") == pytest.approx(1.0, abs=0.02)
    assert drive.closure(data, "right") == pytest.approx(0.0, abs=0.02)


def test_servos_follow_a_moving_target_with_a_small_lag_and_hold_against_gravity(robot, home_state):
    model, drive = robot
    data = mujoco.MjData(model)
    drive.place(data, home_state)
    mujoco.mj_forward(model, data)
    target = home_state.copy()
    lags = []
    for _ in range(30):
        target[7:14] += 1.0 / 30
        target = np.clip(target, drive.lower, drive.upper)
        drive.command(data, target)
        mujoco.mj_step(model, data, 5)
        lags.append(np.abs(target - drive.state(data))[7:14].max())
    assert max(lags) < 0.06  # at 1 rad/s: under 60 ms
    for _ in range(30):
        drive.command(data, target)
        mujoco.mj_step(model, data, 5)
    assert np.abs(target - drive.state(data)).max() < 2e-3


@pytest.mark.parametrize("action", [np.zeros(15), np.full(16, np.nan), np.full(16, np.inf), np.zeros((1, 16))])
def test_malformed_actions_are_refused(robot, action):
    model, drive = robot
    with pytest.raises(InvalidActionError, match="16 finite numbers"):
        drive.command(mujoco.MjData(model), action)


def test_ik_reaches_a_pose_and_ready_posture_is_where_it_says():
    ik = ArmIk("right", np.array(READY_RAD))
    position, rotation = ik.pose(np.array(READY_RAD))
    np.testing.assert_allclose(position, READY_TOOL_M, atol=1e-3)
    np.testing.assert_allclose(rotation, hand_rotation(np.array(READY_TOOL_M)), atol=2e-3)
    goal = np.array([0.70, -0.10, 0.72])
    solved = ik.solve(np.array(READY_RAD), goal, hand_rotation(goal))
    np.testing.assert_allclose(ik.pose(solved)[0], goal, atol=2e-3)


def test_tool_rotation_points_down_and_forward_with_the_camera_side_up():
    rotation = tool_rotation(0.5)
    np.testing.assert_allclose(rotation[:, 2], (np.sin(0.5), 0.0, -np.cos(0.5)))
    assert rotation[2, 0] > 0
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_config_refuses_nonsense():
    with pytest.raises(ValueError, match="stiffness must be positive"):
        G1Config(stiffness=0.0)
