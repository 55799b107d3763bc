"""A real Reverb server: together with the official client, and when it dies."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from reverb_environment import need_reverb

from sop_jax.replay.reverb_tables import ReverbTables
from sop_jax.replay.server import ReverbServer, find_reverb_python
from sop_jax.replay.tables import Sampler, TableConfig
from sop_jax.specs.errors import MissingDependencyError, ReplayUnavailableError
from sop_jax.specs.interfaces import Item

TABLES = (TableConfig("fifo", 100, sampler=Sampler.FIFO),)


def items(first: int, num: int) -> list[Item]:
    return [Item(key, {"x": np.array(key)}) for key in range(first, first + num)]


@pytest.mark.reverb
def test_the_official_client_reads_ours_and_we_read_its(reverb_server):
    columns = {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
        "scalar": np.array(7, np.int64),
        "flags": np.array([True, False]),
    }
    tables = ReverbTables(reverb_server.address)
    tables.reset("ours")
    tables.reset("theirs")
    tables.insert("ours", [Item(11, columns)])
    script = pathlib.Path(__file__).with_name("official_client.py")
    command = [str(find_reverb_python()), str(script), reverb_server.address, "ours", "2", "theirs"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])

    read = [{"dtype": str(c.dtype), "shape": list(c.shape), "values": c.astype(float).ravel().tolist()}
            for c in columns.values()]  # fmt: skip
    for sampled in told["sampled"]:
        assert sampled["key"] == 11
        assert sampled["columns"][0]["values"] == list(b'sop-columns:["matrix","scalar","flags"]')
        assert sampled["columns"][1:] == read
    assert [row[1:] for row in told["dataset"]] == [read, read]

    blob, trajectory, sequence = tables.sample("theirs", 3)
    np.testing.assert_array_equal(blob.columns["0"], [[0, 1, 2, 3]])  # `insert` writes a sequence of one step
    np.testing.assert_array_equal(blob.columns["1"], np.array([2.5], np.float32))
    np.testing.assert_array_equal(trajectory.columns["0"], [[1, 1], [2, 2], [3, 3], [4, 4]])
    np.testing.assert_array_equal(trajectory.columns["1"], True)
    assert trajectory.columns["1"].shape == ()
    expected = np.array([[200 + 20 * step, step] for step in range(1, 5)]).astype(np.uint8)
    np.testing.assert_array_equal(sequence.columns["0"], expected)
    tables.close()


@pytest.mark.reverb
def test_a_killed_server_is_told_and_found_again(tmp_path):
    need_reverb()
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    log = tmp_path / "server.log"
    with ReverbServer(TABLES, checkpoint_dir=checkpoints, log_path=log, start_timeout_s=120.0) as server:
        tables = ReverbTables(server.address)
        before = tables.state_id()
        in_flight: list[str] = []

        def sample() -> None:
            try:
                tables.sample("fifo", 1, timeout_s=3.0)
            except ReplayUnavailableError as error:
                in_flight.append(str(error))

        sampling = threading.Thread(target=sample)
        sampling.start()
        time.sleep(0.3)
        server.kill()
        _check_that_every_call_tells(tables)
        sampling.join(20)
        assert len(in_flight) == 1

        states: list[str] = []
        waiting = threading.Thread(target=lambda: states.append(tables.state_id(timeout_s=60.0)))
        waiting.start()  # a call made while the server is away goes through once it is back
        server.start()
        waiting.join(60)
        assert states
        assert states[0] != before
        assert tables.info()["fifo"].size == 0
        tables.insert("fifo", items(5, 3))
        assert tables.sample("fifo", 1)[0].key == 5

        assert tables.checkpoint().startswith(str(checkpoints))
        tables.insert("fifo", items(8, 1))
        server.kill()
        server.start()
        assert tables.info()["fifo"].size == 3  # what came after the checkpoint is lost
        assert tables.state_id() not in (before, states[0])
        tables.close()
        with pytest.raises(ReplayUnavailableError, match="was closed"):
            tables.info()


def _check_that_every_call_tells(tables: ReverbTables) -> None:
    start_s = time.monotonic()
    for call in (
        lambda: tables.insert("fifo", items(4, 1), timeout_s=0.2),
        lambda: tables.sample("fifo", 1, timeout_s=0.2),
        lambda: tables.info(timeout_s=0.2),
        lambda: tables.state_id(timeout_s=0.2),
        lambda: tables.reset("fifo", timeout_s=0.2),
        lambda: tables.update_priorities("fifo", {1: 1.0}, timeout_s=0.2),
    ):
        with pytest.raises(ReplayUnavailableError, match="no answer from reverb at localhost"):
            call()
    assert time.monotonic() - start_s < 12


@pytest.mark.reverb
def test_the_server_dies_with_its_parent(tmp_path):
    need_reverb()
    program = (
        "import pathlib, sys, time\n"
        "from sop_jax.replay.server import ReverbServer\n"
        "from sop_jax.replay.tables import TableConfig\n"
        "server = ReverbServer([TableConfig('t', 1)], log_path=pathlib.Path(sys.argv[1]), start_timeout_s=240)\n"
        "server.start()\n"
        "print(server.port, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "server.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        answer = parent.stdout.readline()
        assert answer.strip().isdigit(), f"the server did not start: {(tmp_path / 'server.log').read_text()[-1000:]}"
        port = int(answer)
        with socket.create_connection(("localhost", port), timeout=5):
            pass
        os.kill(parent.pid, signal.SIGKILL)
    deadline_s = time.monotonic() + 60  # seconds of a busy machine: the kernel must first bury the parent
    while True:
        try:
            socket.create_connection(("localhost", port), timeout=1).close()
        except OSError:
            break
        assert time.monotonic() < deadline_s, "the server outlived its parent"
        time.sleep(0.2)


@pytest.mark.reverb
def test_only_this_machine_reaches_the_server(reverb_server):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing, but chooses the address that other machines see
        except OSError:
            pytest.skip("this machine has no address but the loopback's")
        outside = probe.getsockname()[0]
    with socket.create_connection(("127.0.0.1", reverb_server.port), timeout=5):
        pass
    with socket.create_connection(("::1", reverb_server.port), timeout=5) if socket.has_ipv6 else socket.socket():
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((outside, reverb_server.port), timeout=5)


@pytest.mark.slow  # imports TensorFlow only to be refused
@pytest.mark.reverb
def test_a_port_in_use_is_refused(tmp_path, reverb_server):
    with (
        pytest.raises(ReplayUnavailableError, match=f"can't serve on port {reverb_server.port}"),
        ReverbServer(TABLES, port=reverb_server.port, log_path=tmp_path / "server.log"),
    ):
        pass


def test_a_missing_environment_names_the_fix(monkeypatch, tmp_path):
    monkeypatch.setenv("SOP_REVERB_PYTHON", str(tmp_path / "python"))
    with pytest.raises(MissingDependencyError, match="make reverb-env"):
        find_reverb_python()
    with pytest.raises(MissingDependencyError, match="make reverb-env"), ReverbServer(TABLES):
        pass
    monkeypatch.setenv("SOP_REVERB_PYTHON", sys.executable)
    assert find_reverb_python() == pathlib.Path(sys.executable)


def test_a_server_that_fails_shows_its_log(monkeypatch, tmp_path):
    monkeypatch.setenv("SOP_REVERB_PYTHON", sys.executable)  # has no dm-reverb
    with pytest.raises(ReplayUnavailableError, match=r"(?s)ended with status 1.*No module named"):
        ReverbServer(TABLES, log_path=tmp_path / "server.log").start()
