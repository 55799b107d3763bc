"""The examples run as printed."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short(path):
    assert len(path.read_text().splitlines()) <= 100


def test_one_episode_goes_round_the_circle():
    environment = {**os.environ, "XLA_FLAGS": ""}
    command = [sys.executable, str(ROOT / "examples" / "one_episode.py")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    lines = result.stdout.splitlines()
    assert lines[0] == "demonstration: success, 0 takeovers"
    assert re.fullmatch(r"policy: \w+, 1 takeovers", lines[1])
    assert int(re.fullmatch(r"intake: (\d+) items", lines[2])[1]) >= 2
    assert lines[3] == "the robot now acts with version 1"


def test_the_readme_prints_a_part_of_the_example():
    readme = (ROOT / "README.md").read_text()
    printed = readme.split("```python\n")[1].split("```")[0].strip().splitlines()
    example = {line.strip() for line in (ROOT / "examples" / "one_episode.py").read_text().splitlines()}
    code = [line.split("  #")[0].strip() for line in printed]
    missing = [line for line in code if line and line not in example]
    assert len(code) >= 8
    assert not missing
