"""`sop replay --tls` and the commands that come to it with their certificates, as processes and people run them."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from sop_jax.cli.arguments import UsageError
from sop_jax.cli.main import main
from sop_jax.cli.replay import ReplayArguments
from sop_jax.cli.replay_access import open_tables
from sop_jax.cli.replay_service import ReplayService
from sop_jax.replay.server import find_reverb_python
from sop_jax.replay.tables import mix_tables
from sop_jax.replay.tls_proxy import find_nginx
from sop_jax.specs.errors import ConfigError, MissingDependencyError

CA_SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "tls" / "ca.sh"
TABLES = mix_tables(["restock_shelf"])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("tls") / "ca"
    for words in (("init", folder), ("server", folder, "replay", "localhost"),
                  *(("client", folder, role, role) for role in ("intake", "learner", "doctor"))):  # fmt: skip
        subprocess.run([CA_SCRIPT, *words], check=True, capture_output=True)
    return folder


def test_what_is_lacking_is_told_before_a_server_starts(certificates, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"launch/tls/ca\.sh"):
        ReplayService(ReplayArguments(store="s", tls=tmp_path), TABLES)
    with pytest.raises(UsageError, match="choose one"):
        ReplayService(ReplayArguments(store="s", tls=certificates / "replay", all_interfaces=True), TABLES)
    monkeypatch.setenv("SOP_NGINX", str(tmp_path / "none"))
    with pytest.raises(MissingDependencyError, match="nginx"):
        ReplayService(ReplayArguments(store="s", tls=certificates / "replay"), TABLES)


def test_the_certificate_comes_from_the_option_or_the_environment(certificates, tmp_path, monkeypatch):
    monkeypatch.setenv("SOP_REPLAY_TLS", str(tmp_path))
    with pytest.raises(ConfigError, match=str(tmp_path)):
        open_tables("localhost:1")
    open_tables("localhost:1", certificates / "learner").close()
    monkeypatch.delenv("SOP_REPLAY_TLS")
    with pytest.raises(ConfigError, match=str(tmp_path)):
        open_tables("localhost:1", tmp_path)


@contextlib.contextmanager
def replay_process(log: pathlib.Path, *words: str) -> Iterator[str]:
    """`sop replay` until the block ends; its first line of output."""
    command = [sys.executable, "-m", "sop_jax.cli.main", "replay", *words]
    with log.open("wb") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as child:
        assert child.stdout is not None
        try:
            yield child.stdout.readline()
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(60)


@pytest.mark.slow
@pytest.mark.reverb
def test_replay_learn_and_doctor_by_their_certificates(certificates, tmp_path, capsys):
    try:
        find_nginx()
        find_reverb_python()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    store = f"file://{tmp_path}/store/"
    act = ["act", "--robot-id", "demonstrator-0", "--store", store, "--expert", "--episodes", "1", "--seed", "5"]
    assert main(act) == 0
    log = tmp_path / "replay.log"
    serve = ["--store", store, "--config", "restock_tiny", "--tls", str(certificates / "replay")]
    with replay_process(log, *serve, "--tls-folder", str(tmp_path / "nginx")) as told:
        address = "localhost:" + re.search(r"at port (\d+) with TLS", told)[1]
        _wait_for(log, "1 episodes in")

        def learn(role: str) -> int:
            return main(["learn", "--store", store, "--replay", address, "--replay-tls", str(certificates / role),
                         "--config", "restock_tiny", "--steps", "2", "--demonstrations-only", "--json",
                         "--checkpoints", str(tmp_path / role), "--publish-to", str(tmp_path / role)])  # fmt: skip

        assert learn("learner") == 0
        assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["step"] == 2
        assert learn("intake") == 2
        assert "role intake, which may not call SampleStream" in capsys.readouterr().err

        os.kill(int((tmp_path / "nginx" / "nginx.pid").read_text()), signal.SIGKILL)
        _wait_for(log, "nginx has ended; it was started again")
        look = ["doctor", "--drill", "--store", store, "--replay", address, "--json"]
        assert main([*look, "--replay-tls", str(certificates / "doctor")]) == 0
        assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["num_items"] > 0

        words = ["--store", store, "--config", "restock_tiny", "--at", address]
        with replay_process(tmp_path / "b.log", *words, "--replay-tls", str(certificates / "intake")) as told:
            assert f"replay fills restock_shelf/online, restock_shelf/offline at {address}" in told
            _wait_for(tmp_path / "b.log", "1 episodes in")
        with replay_process(tmp_path / "c.log", *words, "--replay-tls", str(certificates / "learner")):
            _wait_for(tmp_path / "c.log", "role learner, which may not call InsertStream")


def _wait_for(log: pathlib.Path, text: str) -> None:
    deadline_s = time.monotonic() + 120
    while text not in (seen := log.read_text()):
        assert time.monotonic() < deadline_s, seen[-2000:]
        time.sleep(0.1)
