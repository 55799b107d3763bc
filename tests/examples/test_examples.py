"""The examples run as printed."""

import dataclasses
import math
import os
import pathlib
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest

from sop_jax.algorithms.algorithm import Algorithm
from sop_jax.episodes.synthetic import make_episode
from sop_jax.specs.records import Outcome

ROOT = pathlib.Path(__file__).parent.parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short(path):
    assert len(path.read_text().splitlines()) <= 100


def run_example(name: str) -> list[str]:
    environment = {**os.environ, "XLA_FLAGS": ""}
    command = [sys.executable, str(ROOT / "examples" / name)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.splitlines()


def test_one_episode_goes_round_the_circle():
    lines = run_example("one_episode.py")
    assert lines[0] == "demonstration: success, 0 takeovers"
    assert re.fullmatch(r"policy: \w+, 1 takeovers", lines[1])
    assert int(re.fullmatch(r"intake: (\d+) items", lines[2])[1]) >= 2
    assert lines[3] == "the robot now acts with version 1"


def test_a_new_algorithm_weighs_successes_more_and_learns():
    lines = run_example("new_algorithm.py")
    least, most = map(float, re.fullmatch(r"success: weights (\S+) to (\S+)", lines[0]).groups())
    bad = float(re.fullmatch(r"timeout: weights (\S+) to \1", lines[1])[1])
    assert bad < 1 < least < most <= math.exp(2)
    num_items, *losses = re.fullmatch(r"(\d+) items, 50 steps: loss (\S+) -> (\S+)", lines[2]).groups()
    assert int(num_items) >= 8  # All episodes, demonstrations or not.
    before, after = map(float, losses)
    assert after < 0.6 * before


def test_a_new_robots_episode_is_stored():
    assert run_example("new_robot.py") == ["bench-1.1.0: success, 24 frames of 7 numbers"]


def test_the_new_algorithm_by_hand():
    made = runpy.run_path(str(ROOT / "examples" / "new_algorithm.py"))
    algorithm = made["AdvantageWeighted"](baselines=(("restock_shelf", 0.5),))
    assert isinstance(algorithm, Algorithm)
    assert hash(algorithm) == hash(dataclasses.replace(algorithm))
    success, failure, broken = (
        make_episode(num_frames=61, outcome=outcome) for outcome in (Outcome.SUCCESS, Outcome.FAILURE, Outcome.ERROR)
    )
    # Two seconds before a success e^-0.5 is left of it, at a success all; the advantage is over 0.5.
    weights = algorithm.label_frames(success.manifest, success.arrays, 4).label
    np.testing.assert_allclose(weights[[0, 60]], np.exp([2 * math.exp(-0.5) - 1, 1]), rtol=1e-5)
    np.testing.assert_allclose(
        algorithm.label_frames(failure.manifest, failure.arrays, 4).label, math.exp(-1), rtol=1e-5
    )
    assert not algorithm.label_frames(broken.manifest, broken.arrays, 4).trainable.any()


def test_the_readme_prints_a_part_of_the_example():
    readme = (ROOT / "README.md").read_text()
    printed = readme.split("```python\n")[1].split("```")[0].strip().splitlines()
    example = {line.strip() for line in (ROOT / "examples" / "one_episode.py").read_text().splitlines()}
    code = [line.split("  #")[0].strip() for line in printed]
    missing = [line for line in code if line and line not in example]
    assert len(code) >= 8
    assert not missing
