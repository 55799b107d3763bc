"""Certificates, roles and nginx before a real Reverb server: who gets in, who may do what, and what is said to the others."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from certificates import make_certificates, need_nginx, run_ca
from reverb_environment import need_reverb

from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.replay.intake import Intake
from sop_jax.replay.items import label_all
from sop_jax.replay.reverb_tables import ReverbTables
from sop_jax.replay.server import ReverbServer
from sop_jax.replay.tables import Sampler, TableConfig
from sop_jax.replay.tls import TlsFiles, why_not_trusted
from sop_jax.replay.tls_proxy import TlsProxy, find_nginx, render_config
from sop_jax.specs.errors import ConfigError, MissingDependencyError, ReplayAccessError, ReplayUnavailableError
from sop_jax.specs.interfaces import Item

TABLES = (TableConfig("fifo", 100, sampler=Sampler.FIFO), TableConfig("pick/online", 100))


def items(first: int, num: int) -> list[Item]:
    return [Item(key, {"x": np.array(key)}) for key in range(first, first + num)]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> pathlib.Path:
    return make_certificates(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    need_nginx()
    need_reverb()
    with ReverbServer(TABLES, log_path=tmp_path_factory.mktemp("server") / "log", start_timeout_s=240.0) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(server, certificates, tmp_path_factory):
    with TlsProxy(certificates / "replay", server.port, folder=tmp_path_factory.mktemp("nginx")) as running:
        yield running


@pytest.fixture
def connect(proxy, certificates):
    """Tables through the proxy, with a certificate by its name."""
    opened = []

    def open_tables(name: str, folder: pathlib.Path = certificates) -> ReverbTables:
        opened.append(ReverbTables(proxy.address, TlsFiles.in_folder(folder / name)))
        return opened[-1]

    yield open_tables
    for tables in opened:
        tables.close()


@pytest.mark.reverb
def test_each_role_does_its_work(connect):
    intake, learner, doctor = connect("intake-0"), connect("learner-0"), connect("doctor-0")
    intake.insert("fifo", items(1, 40))
    assert [item.key for item in learner.sample("fifo", 3)] == [1, 1, 1]
    intake.update_priorities("fifo", {}, delete=[1])
    assert doctor.info()["fifo"].size == 39
    assert {item.key for item in doctor.sample("fifo", 1)} == {2}
    assert learner.state_id() == intake.state_id()


@pytest.mark.reverb
def test_what_a_role_may_not_do_is_refused_with_its_name(connect, proxy):
    calls = {
        "insert": lambda tables: tables.insert("fifo", items(1, 1)),
        "sample": lambda tables: tables.sample("fifo", 1),
        "update": lambda tables: tables.update_priorities("fifo", {1: 1.0}),
        "reset": lambda tables: tables.reset("fifo"),
        "checkpoint": lambda tables: tables.checkpoint(),
    }
    forbidden = {
        "intake": {"sample": "SampleStream", "reset": "Reset", "checkpoint": "Checkpoint"},
        "learner": {"insert": "InsertStream", "update": "MutatePriorities", "reset": "Reset"},
        "doctor": {"insert": "InsertStream", "update": "MutatePriorities", "reset": "Reset"},
    }
    for role, names in forbidden.items():
        tables = connect(f"{role}-0")
        for name, method in names.items():
            with pytest.raises(ReplayAccessError, match=f"has role {role}, which may not call {method}"):
                calls[name](tables)
    refusals = (proxy.folder / "refused.log").read_text()
    assert '"CN=learner-0,OU=learner,O=sop-replay" SUCCESS' in refusals
    assert "InsertStream grpc-status 7" in refusals


@pytest.mark.reverb
def test_certificates_that_are_not_ours_are_refused(connect, proxy, certificates, tmp_path):
    other = make_certificates(tmp_path / "other")
    for name in ("learner-0", "intake-0"):  # their certificates and keys, our CA: they trust us, we don't trust them
        shutil.copy(certificates / "ca.crt", other / name / "ca.crt")
    with pytest.raises(ReplayAccessError, match=r"FAILED:.*ca\.sh client"):
        connect("learner-0", other).sample("fifo", 1)
    assert run_ca("client", certificates, "learner", "late", days=-1).returncode == 0
    with pytest.raises(ReplayAccessError, match="certificate has expired"):
        connect("late").sample("fifo", 1)
    with pytest.raises(ReplayAccessError, match="unsuitable certificate purpose"):
        connect("replay").info()
    with pytest.raises(ReplayAccessError, match=r"it wants TLS: give a certificate \(--replay-tls\)"):
        ReverbTables(proxy.address).info(timeout_s=1.0)
    # TLS, and no certificate at all.
    asked = subprocess.run(
        ["openssl", "s_client", "-connect", proxy.address, "-CAfile", certificates / "ca.crt", "-quiet", "-ign_eof"],
        input=b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", capture_output=True, timeout=30, check=False,
    ).stdout.decode()  # fmt: skip
    assert "grpc-status: 16" in asked
    assert "client certificate: NONE" in asked


@pytest.mark.reverb
def test_a_server_that_cannot_be_trusted_is_told_from_one_that_is_away(connect, proxy, server, certificates, tmp_path):
    other = make_certificates(tmp_path / "other")
    with pytest.raises(ReplayAccessError, match=r"not one that .* vouches for.*same ca\.crt"):
        ReverbTables(proxy.address, TlsFiles.in_folder(other / "learner-0")).info(timeout_s=1.0)
    learner = TlsFiles.in_folder(certificates / "learner-0")
    with pytest.raises(ReplayAccessError, match=r"not valid for '127\.0\.0\.2'"):
        ReverbTables(f"127.0.0.2:{proxy.port}", learner).info(timeout_s=1.0)
    with pytest.raises(ReplayAccessError, match="speaks no TLS"):
        ReverbTables(server.address, learner).info(timeout_s=1.0)
    with pytest.raises(ReplayUnavailableError, match="no answer"):
        ReverbTables("localhost:1", learner).info(timeout_s=0.2)
    assert why_not_trusted(proxy.address, learner) == ""
    assert why_not_trusted(server.address, None) == ""


@pytest.mark.reverb
def test_an_intake_that_is_refused_says_so(connect, store_url):
    store = EpisodeStore(store_url)
    store.put(make_episode(seed=1, task="pick"))
    with pytest.raises(ReplayAccessError, match="role learner, which may not call InsertStream"):
        Intake(store, connect("learner-0"), label_all).poll()
    assert Intake(store, connect("intake-0"), label_all).poll().inserted == 1


@pytest.mark.reverb
def test_killed_servers_and_proxies_are_found_again(connect, server, proxy):
    intake, learner = connect("intake-0"), connect("learner-0")
    before = intake.state_id()
    outcomes: list[object] = []

    def wait_for_it() -> None:
        intake.insert("fifo", items(7, 3), timeout_s=120.0)
        outcomes.append([item.key for item in learner.sample("fifo", 1, timeout_s=10.0)])

    server.kill()
    with pytest.raises(ReplayUnavailableError, match="no answer"):
        learner.sample("fifo", 1, timeout_s=0.3)
    waiting = threading.Thread(target=wait_for_it)
    waiting.start()
    server.start()
    waiting.join(120)
    assert outcomes == [[7]]
    assert intake.state_id() != before
    os.kill(proxy._process.pid, signal.SIGKILL)  # the master alone: its workers hold the port
    proxy.stop()
    with pytest.raises(ReplayUnavailableError, match="no answer"):
        learner.sample("fifo", 1, timeout_s=0.3)
    proxy.start()
    assert [item.key for item in learner.sample("fifo", 1, timeout_s=10.0)] == [7]


@pytest.mark.parametrize("answer", [b"", b"\x16\x03\x03"], ids=["nothing", "half a handshake"])
def test_a_server_that_dies_while_it_is_asked_is_only_away(certificates, answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_and_die() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                connection.sendall(answer)
                connection.recv(4096)
                connection.close()

        threading.Thread(target=answer_and_die, daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert why_not_trusted(address, TlsFiles.in_folder(certificates / "learner-0")) == ""
        assert why_not_trusted(address, None) == ""


def test_nginx_ends_with_its_parent(certificates, tmp_path):
    need_nginx()
    program = (
        "import pathlib, sys, time\nfrom sop_jax.replay.tls_proxy import TlsProxy\n"
        "proxy = TlsProxy(pathlib.Path(sys.argv[1]), 1, folder=pathlib.Path(sys.argv[2]))\nproxy.start()\n"
        "print(proxy.port, flush=True)\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(certificates / "replay"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        address = f"localhost:{int(parent.stdout.readline())}"
        tables = ReverbTables(address, TlsFiles.in_folder(certificates / "learner-0"))
        with pytest.raises(ReplayUnavailableError):  # nginx is there, and nothing behind it
            tables.info(timeout_s=0.2)
        master = int((tmp_path / "nginx.pid").read_text())
        os.kill(parent.pid, signal.SIGKILL)
    deadline_s = time.monotonic() + 60
    while pathlib.Path(f"/proc/{master}").exists():
        assert time.monotonic() < deadline_s, "nginx outlived its parent"
        time.sleep(0.05)


def test_a_port_in_use_and_a_certificate_that_nginx_cannot_read(certificates, tmp_path):
    need_nginx()
    with TlsProxy(certificates / "replay", 1, folder=tmp_path / "a") as first:
        second = TlsProxy(certificates / "replay", 1, first.port, tmp_path / "b")
        with pytest.raises(ReplayUnavailableError, match=f"can't serve at port {first.port}: .*in use"):
            second.start()
    proxy = TlsProxy(certificates / "replay", 1, folder=tmp_path / "c")
    proxy._files = tmp_path
    with pytest.raises(ReplayUnavailableError, match=r"(?s)nginx does not serve.*cannot load certificate"):
        proxy.start()
    assert not proxy.is_running


def test_keys_are_private_and_nothing_is_overwritten(certificates):
    for key in (certificates / "ca.key", *certificates.glob("*/tls.key")):
        assert key.stat().st_mode & 0o777 == 0o600
    assert len(list(certificates.glob("*/tls.key"))) >= 4
    for words, complaint in (
        (("init", certificates), "is there already"),
        (("client", certificates, "learner", "learner-0"), "is there already"),
        (("client", certificates, "admin", "x"), "expected intake, learner or doctor"),
        (("client", certificates, "learner", "x,OU=intake"), "expected lower-case"),
        (("server", certificates, "x", "https://example"), "without a port"),
        (("client", certificates / "nowhere", "learner", "x"), "make the CA first"),
        (("client", certificates), "ca.sh init DIR"),
    ):
        done = run_ca(*words)
        assert done.returncode != 0
        assert complaint in done.stderr
    assert run_ca("init", certificates.parent / "fresh").returncode == 0
    assert run_ca("show", certificates.parent / "fresh").returncode == 0  # no certificate yet
    shown = run_ca("show", certificates).stdout
    assert "OU = learner, CN = learner-0" in shown


def test_what_is_wrong_with_a_folder_of_certificates_is_told(certificates, tmp_path):
    with pytest.raises(ConfigError, match=r"no .*ca\.crt: certificates come from `launch/tls/ca\.sh`"):
        TlsFiles.in_folder(tmp_path)
    folder = tmp_path / "copy"
    shutil.copytree(certificates / "learner-0", folder)
    (folder / "tls.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        TlsFiles.in_folder(folder)
    shutil.copy(certificates / "intake-0" / "tls.key", folder / "tls.key")
    with pytest.raises(ConfigError, match="no CA, certificate and key of each other"):
        ReverbTables("localhost:1", TlsFiles(folder / "ca.crt", folder / "tls.crt", folder / "tls.key"))


def test_without_nginx_the_fix_is_named(monkeypatch, certificates, tmp_path):
    monkeypatch.setenv("SOP_NGINX", str(tmp_path / "nginx"))
    with pytest.raises(MissingDependencyError, match="apt-get install nginx"):
        find_nginx()
    with pytest.raises(MissingDependencyError, match="apt-get install nginx"):
        TlsProxy(certificates / "replay", 1, folder=tmp_path).start()


def test_the_configuration_is_filled_in_whole(certificates, tmp_path):
    text = render_config(tmp_path, certificates / "replay", 9000, 8000)
    settings = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert "@" not in settings.replace("@certificate", "").replace("@role", "").replace("@away", "")
    assert "server 127.0.0.1:8000 " in settings
    assert "listen 9000 ssl http2;" in settings
