"""Trials on disk as they end, so that an evaluation that was killed goes on where it was.

`trials/LABEL.jsonl` holds a first line that says whose trials these are, and a line per trial. A process that is killed
while it writes leaves a last line without its end, which is dropped when the file is opened again.
"""

import dataclasses
import fcntl
import json
import pathlib
from collections.abc import Mapping
from typing import IO, Any

from sop_jax.actors.episode import TrialResult
from sop_jax.evaluation.trial_pool import trial_from_json
from sop_jax.specs.errors import ConfigError


class ForeignTrialsError(ConfigError):
    """The directory holds trials of another candidate, world, seed or setting."""


def read_trials(path: pathlib.Path) -> tuple[Mapping[str, Any] | None, dict[int, TrialResult]]:
    """Header (None: not written yet) and trials by seed of a log, which isn't changed. Raises ConfigError, OSError."""
    return _parse(path.read_bytes(), path)


class TrialLog:
    """The trials of one world in one evaluation.

        log = TrialLog(output / "trials" / "restock_shelf.jsonl")
        log.check(asked)                   # refuses a file whose header says anything else about this
        log.claim(header)                  # begins a new file, or refuses another's
        trials = log.trials                # what an earlier process has left, by seed
        log.append(trial)                  # on disk when it returns

    One process at a time; not thread-safe.
    """

    def __init__(self, path: pathlib.Path):
        """Raises ConfigError: another process has the file open, or it isn't a log of trials."""
        self.path = path
        self.trials: dict[int, TrialResult] = {}
        self.header: Mapping[str, Any] | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
        except BlockingIOError:
            self._file.close()
            raise ConfigError(
                f"{path}: another evaluation is writing to it; wait for it, or choose another folder"
            ) from None
        except (ConfigError, OSError):
            self._file.close()
            raise

    def claim(self, header: Mapping[str, Any]) -> None:
        """Says whose trials will be appended. Raises ForeignTrialsError if others' are there."""
        self.check(header)
        if self.header is None:
            self.header = json.loads(json.dumps(header))
            self._write({"header": header})

    def check(self, expected: Mapping[str, Any]) -> None:
        """Raises ForeignTrialsError if the file has a header that differs in any of these values."""
        if self.header is None:
            return
        header = self.header
        expected = json.loads(json.dumps(expected))  # tuples are lists on disk
        if differing := [name for name, value in expected.items() if header.get(name) != value]:
            told = "; ".join(f"{name}: {header.get(name)} there, {expected[name]} now" for name in differing)
            raise ForeignTrialsError(
                f"{self.path} holds trials of another evaluation ({told}); choose another output folder, or delete it"
            )

    def append(self, trial: TrialResult) -> None:
        self.trials[trial.seed] = trial
        self._write(dataclasses.asdict(trial))

    def close(self) -> None:
        self._file.close()

    def _read(self) -> None:
        self._file.seek(0)
        data = self._file.read()
        self._file.truncate(_complete(data))
        self.header, self.trials = _parse(data, self.path)

    def _write(self, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(values).encode() + b"\n")
        self._file.flush()


def _complete(data: bytes) -> int:
    """Bytes up to the end of the last whole line."""
    return data.rfind(b"\n") + 1


def _parse(data: bytes, path: pathlib.Path) -> tuple[Mapping[str, Any] | None, dict[int, TrialResult]]:
    header, trials = None, {}
    lines = data[: _complete(data)].splitlines()
    try:
        if lines:
            header = json.loads(lines[0])["header"]
        for line in lines[1:]:
            trial = trial_from_json(json.loads(line))
            trials[trial.seed] = trial
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not a log of trials ({error}); choose another output folder") from None
    return header, trials
