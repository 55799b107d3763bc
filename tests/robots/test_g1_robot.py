import pytest
from g1_parts import CONFIG, make_bench
from robot_contract import RobotContract

import envs


@pytest.fixture(scope="module")
def environment():
    environment = envs.load("restock_shelf", image_size=32)
    yield environment
    environment.close()


class TestG1Robot(RobotContract):
    @pytest.fixture
    def robot(self, environment):
        return make_bench(environment, CONFIG).robot
