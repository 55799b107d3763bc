"""Which link a configuration asks for; what it needs is imported when a robot is connected, and not before."""

import importlib
from collections.abc import Callable

from sop_jax.robots.g1.config import G1RobotConfig
from sop_jax.robots.g1.link import G1Link
from sop_jax.robots.g1.sdk_link import connect
from sop_jax.specs.errors import MissingDependencyError


def connect_robot(config: G1RobotConfig, stop_signal: Callable[[], str] | None = None) -> G1Link:
    """A link to the robot. `stop_signal` is a lab's own source of the emergency stop: why the robot is stopped, or "".

    Raises MissingDependencyError without the vendor's SDK, its server, or Cyclone DDS.
    """
    if config.link == "sdk":
        return connect(config.cameras, config.units, stop_signal, config.sdk_socket)
    return import_ros2("ros2_link").Ros2Link(config.ros2, config.cameras, config.units, stop_signal)


def import_ros2(name: str):
    """A module of this package that needs Cyclone DDS. Raises MissingDependencyError."""
    try:
        return importlib.import_module(f"sop_jax.robots.g1.{name}")
    except ImportError as error:
        raise MissingDependencyError(
            f"the ROS 2 link needs Cyclone DDS, which can't be imported: {error}. On x86-64 launch/setup.sh installs it; "
            "elsewhere build Cyclone DDS and its Python package (cyclonedds), or use the SDK's link"
        ) from error
