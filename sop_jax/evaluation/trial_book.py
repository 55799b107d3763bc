"""All trials of one evaluation, in several worlds: in memory, and (with a folder) on disk as they end."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from sop_jax.actors.episode import TrialResult
from sop_jax.evaluation.trial_log import TrialLog
from sop_jax.evaluation.trial_pool import Identity
from sop_jax.evaluation.trials import TrialJob
from sop_jax.evaluation.world import WorldConfig
from sop_jax.specs.errors import ConfigError


class TrialBook:
    """Keeps trials by job.

        with TrialBook(worlds, asked, folder) as book:
            book.read(seeds)                        # what an earlier process has left
            book.claim(identity)                    # refuses a folder with trials of other weights; also if none is missing
            book.write(job, trial)
            book.trials, book.identity

    `worlds` maps labels to worlds; `asked` is what else the trials depend on, as plain values.
    """

    def __init__(self, worlds: Mapping[str, WorldConfig], asked: Mapping[str, Any], folder: pathlib.Path | None = None):
        """Raises ForeignTrialsError, ConfigError."""
        if unfit := [label for label in worlds if not re.fullmatch(r"[\w.-]+", label)]:
            raise ConfigError(f"a world's label names a file: expected letters, digits, '_', '-' and '.', got {unfit}")
        self.trials: dict[TrialJob, TrialResult] = {}
        self.labels = tuple(worlds)
        self._asked = [{**asked, "world": dataclasses.asdict(world)} for world in worlds.values()]
        self._identity: Identity | None = None
        self._logs: list[TrialLog] = []
        try:
            for label, expected in zip(self.labels, self._asked, strict=True):
                if folder is not None:
                    self._logs.append(TrialLog(folder / "trials" / f"{label}.jsonl"))
                    self._logs[-1].check(expected)
        except BaseException:
            self.close()
            raise

    @property
    def identity(self) -> Identity:
        """Whose trials these are, as `claim` was told (what is on disk may be of other weights by now)."""
        if self._identity is None:
            raise RuntimeError("nobody has claimed these trials: call claim(identity) before identity is read")
        return self._identity

    def read(self, seeds: Sequence[int]) -> None:
        """Takes up the trials of these seeds that are on disk."""
        for index, log in enumerate(self._logs):
            for seed in seeds:
                if seed in log.trials:
                    self.trials[TrialJob(index, seed)] = log.trials[seed]

    def claim(self, identity: Identity) -> None:
        """Says whose trials these are and those that will be written. Raises ForeignTrialsError."""
        self._identity = identity
        known = {"policy_version": identity.policy_version, "base": identity.base, "weights": identity.weights}
        for index, log in enumerate(self._logs):
            world = {"world_version": identity.worlds[index], "stages": identity.stages[index]}
            log.claim({**self._asked[index], **known, **world})

    def write(self, job: TrialJob, trial: TrialResult) -> None:
        self.trials[job] = trial
        if self._logs:
            self._logs[job.world].append(trial)

    def close(self) -> None:
        for log in self._logs:
            log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
