"""The fuzzer's targets without the fuzzer: their seeds are good, and small mutations of them are taken or refused."""

import json
import random
import subprocess
import sys

import pytest

from benchmarks.fuzz.mutations import mutate_json
from benchmarks.fuzz.targets import TARGETS, Target


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_mutations_of_them(name):
    target, rng = TARGETS[name], random.Random(0)
    for seed in target.seeds:
        assert len(seed) <= target.max_bytes
        target(seed)
        for _ in range(20):
            mutant = bytearray(seed)
            for _ in range(rng.randrange(1, 4)):
                mutant[rng.randrange(len(mutant))] = rng.randrange(256)
            target(bytes(mutant[: rng.randrange(1, len(mutant) + 1)]))
            target((target.mutate and target.mutate(seed, rng)) or seed)


def test_mutated_json_is_json_and_differs():
    rng, seed = random.Random(0), b'{"a": [1, {"b": "c"}], "d": 2.5}'
    found = {mutate_json(seed, rng) for _ in range(200)}
    assert len(found) > 100
    assert all(text is not None and json.loads(text) is not Ellipsis for text in found)
    assert any(json.loads(text)["a"] == [1, {"b": "c"}, 1] for text in found if b'"a"' in text and b'"d"' in text)
    assert mutate_json(b"{", rng) is None


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in ("zip", "operator")])
def test_the_first_seed_is_accepted(name):
    TARGETS[name].run(TARGETS[name].seeds[0])


def test_another_error_is_a_finding():
    target = Target(lambda data: json.loads(data), [b"{}"], (ValueError,))
    target(b"{")
    target = Target(lambda data: data[5], [b"{}"], (ValueError,))
    with pytest.raises(IndexError):
        target(b"")


def test_an_input_runs_once_more_without_the_fuzzer(tmp_path):
    (tmp_path / "found").write_bytes(b"{")
    words = ["-m", "benchmarks.fuzz", "--targets", "manifest", "--input", str(tmp_path / "found")]
    assert subprocess.run([sys.executable, *words], check=False).returncode == 0
