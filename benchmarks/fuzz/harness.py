"""One target under atheris, in a process of its own: `python -m benchmarks.fuzz.harness TARGET CORPUS [OPTION ...]`."""

import importlib
import pathlib
import random
import sys
from typing import Any


def main() -> None:
    name, corpus = sys.argv[1], pathlib.Path(sys.argv[2])
    atheris: Any = importlib.import_module("atheris")  # in no environment of ours
    with atheris.instrument_imports(include=["sop_jax"]):
        target = importlib.import_module("benchmarks.fuzz.targets").TARGETS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)

    def mutate(data: bytes, max_bytes: int, seed: int) -> bytes:
        rng = random.Random(seed)
        kept = target.mutate(data, rng) if target.mutate is not None and rng.random() < 0.7 else None
        return atheris.Mutate(data, max_bytes) if kept is None else kept[:max_bytes]

    options = [f"-max_len={target.max_bytes}", *sys.argv[3:]]
    atheris.Setup([sys.argv[0], str(corpus), *options], target, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
