"""Imports point down only: the floors of the house, read from the source files."""

import ast
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

FLOORS = {
    "envs": 1,
    "sop_jax.specs": 1,
    "sop_jax.episodes": 2,
    "sop_jax.replay": 2,
    "sop_jax.models": 2,
    "sop_jax.robots": 2,
    "sop_jax.sampling": 3,
    "sop_jax.algorithms": 3,
    "sop_jax.weights": 3,
    "sop_jax.interchange": 3,
    "sop_jax.actors": 4,
    "sop_jax.learner": 4,
    "sop_jax.evaluation": 5,
    "sop_jax.monitoring": 5,
    "sop_jax.drill": 5,
    "fleet_sim": 5,
    "configs": 6,
    "sop_jax.cli": 7,
}

# Neighbours on one floor that may lean on each other, each for one reason.
NEIGHBOURS = {
    ("sop_jax.replay", "sop_jax.episodes"),  # intake reads the store
    ("sop_jax.sampling", "sop_jax.algorithms"),  # the batch builder asks the algorithm for its mask
    ("sop_jax.algorithms", "sop_jax.sampling"),
    ("fleet_sim", "sop_jax.evaluation"),  # a simulated fleet works in the worlds that evaluations use
}

# A robot's computer installs no training code.
ROBOT_SIDE = (
    "sop_jax.robots",
    "sop_jax.actors",
    "sop_jax.weights.follower",
    "sop_jax.episodes",
    "sop_jax.specs",
    "sop_jax.cli.act_station",
    "sop_jax.cli.operate",
)
TRAINING_ONLY = (
    "optax",
    "tensorflow",
    "reverb",
    *(f"sop_jax.{name}" for name in ("learner", "algorithms", "sampling", "replay")),
)


def station_of(module: str) -> str | None:
    matches = [station for station in FLOORS if module == station or module.startswith(station + ".")]
    return max(matches, key=len, default=None)


def modules() -> dict[str, pathlib.Path]:
    found = {}
    for top in ("sop_jax", "envs", "fleet_sim", "configs"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: pathlib.Path) -> set[str]:
    """Absolute names of every module that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor they come from"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


MODULES = modules()


def test_every_module_stands_on_a_floor():
    homeless = [name for name in MODULES if name != "sop_jax" and station_of(name) is None]
    assert not homeless
    assert len(MODULES) > 20


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_down(name):
    station = station_of(name)
    if station is None:
        return
    for imported in imports_of(MODULES[name]):
        other = station_of(imported)
        if other is None or other == station or (station, other) in NEIGHBOURS:
            continue
        if station == "envs":
            raise AssertionError(f"{name} imports {imported}: the worlds import nothing of ours")
        allowed = FLOORS[other] < FLOORS[station]
        assert allowed, f"{name} (floor {FLOORS[station]}) imports {imported} (floor {FLOORS[other]})"


def reachable(start: str) -> set[str]:
    """Every module that importing `start` pulls in, followed through our own files."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in MODULES:
            todo += list(imports_of(MODULES[name]))
            todo += [name.rpartition(".")[0]] if "." in name else []
    return seen


@pytest.mark.parametrize("name", [name for name in sorted(MODULES) if name.startswith(ROBOT_SIDE)])
def test_robot_side_needs_no_training_code(name):
    pulled = {module for module in reachable(name) if module.startswith(TRAINING_ONLY)}
    assert not pulled, f"{name} pulls in training code: {sorted(pulled)}"


# Where a package's name isn't that of its module.
MODULE_OF = {"dm-control": "dm_control", "orbax-checkpoint": "orbax"}


def packages(name: str) -> set[str]:
    """The packages that a requirements file names."""
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    return {match[0] for line in lines if (match := re.match(r"[a-z][a-z0-9-]*", line))}


def test_a_robots_computer_installs_what_its_actor_imports():
    """Every package that `sop act --station` and `sop operate` import is asked for in edge.in, and nothing else is."""
    pulled = {
        module.split(".")[0] for start in ("act_station", "operate") for module in reachable(f"sop_jax.cli.{start}")
    }
    third_party = pulled - set(sys.stdlib_module_names) - {"sop_jax", "envs", "configs", ""}
    asked = {MODULE_OF.get(name, name) for name in packages("edge.in")}
    assert third_party - asked == {"dm_env"}  # dm_control's own interface, which it brings along
    assert asked - third_party == {"setuptools", "cyclonedds"}  # the latter when a robot is connected over ROS 2


def test_a_robots_computer_installs_nothing_that_trains():
    locked, base = packages("edge.txt"), packages("base.txt")
    unwanted = {
        "tensorflow",
        "dm-reverb",
        "grpcio",
        "tensorboardx",
        "matplotlib",
        "av",
        "simpy",
        "jinja2",
        "cramjam",
        "pyarrow",
    }
    assert not locked & unwanted
    assert packages("edge.in") < locked < base
    text = (ROOT / "requirements" / "edge.txt").read_text(encoding="utf-8")
    assert "://" not in text  # packages, versions and hashes, no address
    pins = set(re.findall(r"^([a-z0-9-]+==[\w.]+)", text, re.MULTILINE))
    assert pins <= set(
        re.findall(r"^([a-z0-9-]+==[\w.]+)", (ROOT / "requirements" / "base.txt").read_text(), re.MULTILINE)
    )
    # flax brings optax along; nothing else does, and none of our modules on this side imports it.
    (optax,) = re.findall(r"^optax==.*?(?=^[a-z])", text, re.MULTILINE | re.DOTALL)
    assert re.findall(r"#   (\S.*)", optax) == ["-c requirements/base.txt", "flax"]


def test_replay_client_needs_no_tensorflow():
    for name in MODULES:
        if name.startswith("sop_jax"):
            for imported in imports_of(MODULES[name]):
                assert imported.split(".")[0] not in ("tensorflow", "reverb"), f"{name} imports {imported}"


def test_nothing_can_unpickle():
    for name, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        for word in ("import pickle", "allow_pickle=True", "import dill", "import cloudpickle", "joblib"):
            assert word not in text, f"{name} holds {word!r}: no pickle on any wire or in any file read back"
