"""What every Supervisor must do."""

import numpy as np

from sop_jax.specs.interfaces import Request, Robot, Supervisor


class SupervisorContract:
    """Subclasses give a fixture `pair`: (robot, supervisor). The supervisor must ask while the robot stands still."""

    patience_ticks = 400

    def test_it_asks_with_a_reason_when_the_robot_stands_still(self, pair: tuple[Robot, Supervisor]):
        robot, supervisor = pair
        request = self._stand_still(robot, supervisor)
        assert isinstance(request, Request)
        assert request.reason
        assert request.reason == request.reason.lower()
        assert " " not in request.reason

    def test_its_actions_are_within_the_robot_spec(self, pair: tuple[Robot, Supervisor]):
        robot, supervisor = pair
        self._stand_still(robot, supervisor)
        for _ in range(5):
            action = supervisor.act()
            assert (action.dtype, action.shape) == (np.float32, (robot.spec.action_dim,))
            assert np.all(action >= np.array(robot.spec.action_low, np.float32) - 1e-6)
            assert np.all(action <= np.array(robot.spec.action_high, np.float32) + 1e-6)
            robot.apply(action)
            assert supervisor.releases_control() in (True, False)

    def test_its_first_action_continues_from_the_present_pose(self, pair: tuple[Robot, Supervisor]):
        robot, supervisor = pair
        self._stand_still(robot, supervisor)
        before = robot.observe(images=False).state
        robot.apply(supervisor.act())
        after = robot.observe(images=False).state
        assert np.max(np.abs(after[:14] - before[:14])) < 0.2

    def test_it_takes_a_robot_from_any_pose_to_success(self, pair: tuple[Robot, Supervisor]):
        robot, supervisor = pair
        self._stand_still(robot, supervisor)
        while (end := robot.check_end()) is None:
            robot.apply(supervisor.act())
        assert end.outcome == "success"

    def _stand_still(self, robot: Robot, supervisor: Supervisor) -> Request | None:
        robot.reset(3)
        supervisor.reset()
        hold = robot.observe(images=False).state
        for _ in range(self.patience_ticks):
            request = supervisor.wants_control()
            if request is not None:
                return request
            robot.apply(hold)
        return None
