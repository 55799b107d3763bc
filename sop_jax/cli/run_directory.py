"""The folder that a run writes, and where the things in it lie."""

import dataclasses
import json
import pathlib
from typing import Any

from configs.files import to_json
from sop_jax.cli.arguments import UsageError
from sop_jax.cli.locations import store_url
from sop_jax.evaluation.provenance import Provenance
from sop_jax.evaluation.run_metrics import write_json


@dataclasses.dataclass(frozen=True)
class RunStart:
    """How a run began: the command that repeats it, and where and when it was given."""

    command: str
    machine: Provenance


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """`runs/<name>/`: everything that one run knows. Phases leave a file each, so that a run can be taken up again."""

    root: pathlib.Path

    @property
    def config(self) -> pathlib.Path:
        return self.root / "config.json"

    @property
    def store_url(self) -> str:
        return store_url(self.root / "store")

    @property
    def control_store_url(self) -> str:
        """Publications of the control, apart from the robots' own."""
        return store_url(self.root / "control" / "store")

    @property
    def metrics(self) -> pathlib.Path:
        return self.root / "metrics"

    @property
    def control_metrics(self) -> pathlib.Path:
        return self.root / "control" / "metrics"

    @property
    def start(self) -> pathlib.Path:
        return self.root / "start.json"

    @property
    def tensorboard(self) -> pathlib.Path:
        return self.root / "tensorboard"

    @property
    def summary(self) -> pathlib.Path:
        return self.root / "summary.json"

    @property
    def report(self) -> pathlib.Path:
        return self.root / "report.html"

    def log(self, process: str) -> pathlib.Path:
        return self.root / "logs" / f"{process}.log"

    def checkpoints(self, learner: str = "learner") -> pathlib.Path:
        return self.root / "checkpoints" / learner

    def phase(self, name: str) -> pathlib.Path:
        return self.root / "phases" / f"{name}.json"

    def read_phase(self, name: str) -> dict[str, Any] | None:
        """What a finished phase left, or None if it hasn't finished."""
        path = self.phase(name)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def finish_phase(self, name: str, result: Any) -> None:
        write_json(self.phase(name), result)

    def read_start(self) -> RunStart | None:
        """None for a run of an earlier version, which didn't write it down."""
        if not self.start.exists():
            return None
        values = json.loads(self.start.read_text(encoding="utf-8"))
        return RunStart(values["command"], Provenance(**values["machine"]))

    def write_start(self, start: RunStart) -> None:
        write_json(self.start, dataclasses.asdict(start))

    def create(self, config: Any) -> None:
        """Makes the folder and saves the resolved config. Raises UsageError if it holds another run."""
        if self.config.exists():
            raise UsageError(
                f"{self.root} holds a run already: take it up with --resume {self.root}, or choose another --run"
            )
        write_json(self.config, to_json(config))
