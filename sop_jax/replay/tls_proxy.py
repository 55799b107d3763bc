"""nginx before a Reverb server: TLS, client certificates, and who may make which call."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Self

from sop_jax.replay.tls import TlsFiles
from sop_jax.specs.errors import MissingDependencyError, ReplayUnavailableError

NGINX_VARIABLE = "SOP_NGINX"
"""Environment variable that names another nginx."""

_TEMPLATE = pathlib.Path(__file__).resolve().parents[2] / "launch" / "tls" / "nginx.conf"
_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 3.0
_POLL_S = 0.02


def find_nginx() -> str:
    """The nginx to run. Raises MissingDependencyError if there is none."""
    # Debian keeps it where only root's PATH looks.
    chosen = os.environ.get(NGINX_VARIABLE) or shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if chosen is None or shutil.which(chosen) is None:
        raise MissingDependencyError(
            f"TLS needs nginx, and there is no {chosen or 'nginx'}: `apt-get install nginx`, or set {NGINX_VARIABLE} "
            "to one with HTTP/2 and gRPC (1.22 was tested)"
        )
    return chosen


def render_config(folder: pathlib.Path, files: pathlib.Path, port: int, reverb_port: int) -> str:
    """launch/tls/nginx.conf with its @NAMES@ filled in."""
    listen = f"listen {port} ssl http2;" + (f" listen [::]:{port} ssl http2 ipv6only=on;" if _has_ipv6() else "")
    text = _TEMPLATE.read_text()
    for name, value in {"FOLDER": folder, "FILES": files, "LISTEN": listen, "REVERB_PORT": reverb_port}.items():
        text = text.replace(f"@{name}@", str(value))
    return text


class TlsProxy:
    """Lets clients with certificates in to the Reverb server at `reverb_port` of this machine, for a `with` block.

        with ReverbServer(configs) as server, TlsProxy(pathlib.Path("certificates/replay"), server.port) as proxy:
            ReverbTables(proxy.address, TlsFiles.in_folder(pathlib.Path("certificates/learner-0")))

    Ends with the process that started it, even after SIGKILL. Its configuration, log and refusals are in `folder`. While
    the server is away, clients are told so and go on trying.

    Attributes:
      port: where it listens, on every interface; a free port if it was 0.
    """

    def __init__(self, files: pathlib.Path, reverb_port: int, port: int = 0, folder: pathlib.Path | None = None):
        TlsFiles.in_folder(files)
        self._files = files.absolute()
        self._reverb_port = reverb_port
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port or _free_port()
        self.folder = (folder or pathlib.Path(tempfile.mkdtemp(prefix="sop-tls-"))).absolute()

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts nginx and waits for its port. Raises ReplayUnavailableError if the port is taken or nginx ends."""
        self._wait_until_port_is_free()
        command = [find_nginx(), "-e", str(self.folder / "nginx.log"), "-c", str(self.folder / "nginx.conf")]
        self.folder.mkdir(parents=True, exist_ok=True)
        config = render_config(self.folder, self._files, self.port, self._reverb_port)
        (self.folder / "nginx.conf").write_text(config)
        with (self.folder / "nginx.log").open("ab") as log:
            # setpriv (util-linux): nginx ends when we do. Its own group, so that workers can be ended with a killed master.
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command, "-p", str(self.folder), "-g", "daemon off;"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._wait_for_port(self._process)

    def stop(self) -> None:
        """Ends nginx and its workers. Does nothing if it isn't running."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_port_is_free(self) -> None:
        """Else nginx would wait for the port, and we would take the other listener for it. Killed workers need a moment."""
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        while True:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("", self.port))
                except OSError as error:
                    if time.monotonic() > deadline_s:
                        raise ReplayUnavailableError(
                            f"nginx can't serve at port {self.port}: {error}. Stop what listens there, or choose another "
                            "--port"
                        ) from error
                else:
                    return
            time.sleep(_POLL_S)

    def _wait_for_port(self, process: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("localhost", self.port), timeout=1.0):
                return
            time.sleep(_POLL_S)
        complaint = (self.folder / "nginx.log").read_text(errors="replace")[-800:]
        self.stop()
        raise ReplayUnavailableError(f"nginx does not serve at port {self.port}; {self.folder}/nginx.log: {complaint}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False
