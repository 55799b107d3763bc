"""The folder of one drill, where its processes, its ledgers and its checker meet."""

import dataclasses
import pathlib

TASK = "fake_task"
"""What the drill's robots do."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Paths below a drill's folder. store: another one than its own, as a URL."""

    root: pathlib.Path
    store: str = ""

    @property
    def store_url(self) -> str:
        return self.store or f"file://{self.root.absolute()}/store/"

    def object(self, path: str) -> pathlib.Path:
        """The file of an object in the drill's own store."""
        return self.root / "store" / path

    def spool(self, robot: str) -> pathlib.Path:
        return self.root / "spool" / robot

    def ledger(self, robot: str) -> pathlib.Path:
        return self.root / "ledger" / f"{robot}.jsonl"

    def ledgers(self) -> list[pathlib.Path]:
        return sorted((self.root / "ledger").glob("*.jsonl"))

    def link_cut(self, robot: str) -> pathlib.Path:
        """While this file exists, the robot doesn't reach the store."""
        return self.root / f"{robot}.link_cut"

    def disk_full(self, robot: str) -> pathlib.Path:
        """While this file exists, the robot's disk has no room."""
        return self.root / f"{robot}.disk_full"

    def idle(self, robot: str) -> pathlib.Path:
        """Exists once the robot's present process has handed over its last episode."""
        return self.root / f"{robot}.idle"

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.root / "checkpoints"

    @property
    def samples(self) -> pathlib.Path:
        """What the learner sampled, a JSON line each."""
        return self.root / "samples.jsonl"

    @property
    def overdue(self) -> pathlib.Path:
        """Calls that took longer than their deadline, a JSON line each."""
        return self.root / "overdue.jsonl"

    def log(self, station: str) -> pathlib.Path:
        return self.root / "logs" / f"{station}.log"
