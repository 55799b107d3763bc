"""The real demo with every process of its own, real Reverb and real faults: killed, stopped, taken up, finished."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from configs.files import to_json
from configs.registry import DEMOS
from sop_jax.cli.run_directory import RunDirectory
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.verify import verify_bytes
from sop_jax.replay.server import find_reverb_python
from sop_jax.specs.errors import MissingDependencyError
from sop_jax.specs.records import Source

_NUM_STEPS = 1000


def _config():
    tiny = DEMOS["restock_tiny"]
    learner = dataclasses.replace(tiny.learning.learner, num_steps=_NUM_STEPS, checkpoint_every=50)
    return dataclasses.replace(
        tiny,
        learning=dataclasses.replace(tiny.learning, learner=learner, niceness=0),  # robots may be late here
        evaluation=dataclasses.replace(tiny.evaluation, num_trials=4),
        max_loop_s=900.0,
    )


class RunningDemo:
    """`sop demo` as a person would start it, and what can be seen of it from outside."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.directory = RunDirectory(folder / "run")
        self._process: subprocess.Popen[str] | None = None

    def start(self, *words: str) -> None:
        with (self.folder / "stderr.txt").open("a") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sop_jax.cli.main", "demo", "--json", "--skip-doctor", *words],
                stdout=subprocess.PIPE, stderr=stderr, text=True, env={**os.environ, "XLA_FLAGS": ""},
            )  # fmt: skip

    def finish(self, timeout_s: float) -> tuple[int, str]:
        """Exit code and last line of stdout."""
        assert self._process is not None
        stdout, _ = self._process.communicate(timeout=timeout_s)
        return self._process.returncode, (stdout.splitlines() or [""])[-1]

    def interrupt(self) -> None:
        """Ctrl-C."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def pid_of(self, *marks: str) -> int | None:
        """The process of this run whose command line has all these words."""
        found = [pid for pid, words in self.processes().items() if all(mark in words for mark in marks)]
        return found[0] if len(found) == 1 else None

    def processes(self) -> dict[int, list[str]]:
        """Everything below the demo's process, zombies left out; the Reverb server too."""
        commands: dict[int, list[str]] = {}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().decode().split("\0")
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if any(word.startswith(str(self.folder)) or f"file://{self.folder}" in word for word in words):
                    commands[int(entry.name)] = words
                elif any(word.endswith("reverb/serve.py") for word in words):
                    commands[int(entry.name)] = [*words, "reverb"]
        return commands

    def events(self, name: str) -> list[dict]:
        lines = []
        for path in sorted(self.directory.metrics.glob("*.jsonl")):
            lines += [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        return [event for event in lines if event["event"] == name]

    def sessions(self, robot: str) -> set[str]:
        """Sessions (one per start of the robot's process) that have an episode in the store."""
        store = EpisodeStore(self.directory.store_url)
        return {path.split("/")[-1].split(".")[1] for path in store.list_paths() if path.split("/")[-2] == robot}

    def online_items(self) -> int:
        sizes = [event["size"] for event in self.events("table") if event["table"].endswith("/online")]
        return sizes[-1] if sizes else 0

    def last_step(self) -> int:
        return max((event["step"] for event in self.events("learner_step")), default=0)

    def wait_until(self, what: str, condition, timeout_s: float = 400.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert self._process is not None
            assert self._process.poll() is None, f"the demo ended before {what}: {self._said()}"
            assert time.monotonic() < deadline_s, f"no sign of {what}: {self._said()}"
            time.sleep(0.2)

    def _said(self) -> str:
        return (self.folder / "stderr.txt").read_text()[-2000:]


@pytest.fixture
def demo(tmp_path):
    try:
        find_reverb_python()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    demo = RunningDemo(tmp_path)
    yield demo
    demo.kill()


@pytest.mark.slow
def test_killed_parts_come_back_and_a_stopped_run_is_finished(demo):
    config_path = demo.folder / "config.json"
    config_path.write_text(json.dumps(to_json(_config())))
    run, learner, robot = str(demo.directory.root), ("learn", "--checkpoints"), ("act", "robot-0")
    demo.start("--config", str(config_path), "--run", run)
    demo.wait_until("learning past a checkpoint", lambda: demo.last_step() >= 75 and demo.sessions("robot-0"))

    killed_at, sessions = demo.last_step(), demo.sessions("robot-0")
    for marks in (learner, robot):
        os.kill(demo.pid_of(*marks), signal.SIGKILL)
    demo.wait_until("an episode of the robot started again", lambda: demo.sessions("robot-0") > sessions)
    demo.wait_until("the learner's return", lambda: demo.last_step() > killed_at + 25)
    ready = [line for line in demo.directory.log("learner").read_text().splitlines() if "learner ready" in line]
    assert len(ready) == 2
    assert int(ready[1].split("step ")[1].split(",")[0]) >= 50  # its checkpoint, not the base policy

    server, step = demo.pid_of("reverb"), demo.last_step()
    items = demo.online_items()
    os.kill(server, signal.SIGKILL)
    demo.wait_until("a new Reverb server", lambda: demo.pid_of("reverb") not in (None, server))
    demo.wait_until("rebuilt tables", lambda: "tables rebuilt" in demo.directory.log("replay").read_text())
    demo.wait_until("all items again", lambda: demo.online_items() >= items)
    demo.wait_until("learning from them", lambda: demo.last_step() >= step + 100)

    demo.interrupt()
    code, _ = demo.finish(timeout_s=60)
    assert code == 130
    assert demo.processes() == {}
    stopped_at = demo.last_step()
    assert stopped_at < _NUM_STEPS
    assert not demo.directory.report.exists()

    demo.start("--resume", run)
    code, last_line = demo.finish(timeout_s=900)
    assert code == 0
    assert demo.processes() == {}
    summary = json.loads(last_line)
    assert summary["learner_steps"] == _NUM_STEPS
    assert summary["num_eval_trials"] == 4
    assert summary["num_publications"] > 0 < summary["num_swaps"]
    assert demo.directory.report.stat().st_size > 10_000
    after = json.loads(demo.directory.phase("after").read_text())["result"]
    publications = demo.events("publication")
    assert after["policy_version"] == publications[-1]["version"]
    assert publications[-1]["learner_step"] == _NUM_STEPS
    versions = [event["version"] for event in publications]
    assert versions == sorted(set(versions))  # no number is used twice, though steps were taken again
    loop = json.loads(demo.directory.phase("loop").read_text())
    assert loop["num_restarts"] == 2
    assert {note.split()[1] for note in loop["notes"]} == {"learner", "robot-0"}

    store = EpisodeStore(demo.directory.store_url)
    paths = store.list_paths()
    verified = [verify_bytes(store.read_bytes(path), path) for path in paths]
    online = [episode for episode in verified if episode.manifest.source is Source.ONLINE]
    assert len(online) == summary["num_episodes"]
    assert not list((demo.directory.root / "spool").glob("*/*.zip"))  # everything recorded has arrived
