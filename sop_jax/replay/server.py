"""Starts and stops a Reverb server, which runs in an environment of its own."""

import contextlib
import os
import pathlib
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from sop_jax.replay.tables import TableConfig, index_by_name, tables_to_json
from sop_jax.specs.errors import MissingDependencyError, ReplayUnavailableError

PYTHON_VARIABLE = "SOP_REVERB_PYTHON"
"""Environment variable that names another Python in which dm-reverb can be imported."""

_FOLDER = pathlib.Path(__file__).resolve().parents[2] / "launch" / "reverb"
_SERVING = re.compile(r"^reverb serving on port (\d+)$", re.MULTILINE)
_POLL_S = 0.1


def find_reverb_python(environment: Mapping[str, str] | None = None) -> pathlib.Path:
    """The Python of the server's environment. Raises MissingDependencyError if there is none."""
    chosen = (os.environ if environment is None else environment).get(PYTHON_VARIABLE)
    python = pathlib.Path(chosen) if chosen else _FOLDER / ".venv" / "bin" / "python"
    if not python.exists():
        raise MissingDependencyError(
            f"the Reverb server's environment is missing: no {python}. Make it with `make reverb-env`, or set "
            f"{PYTHON_VARIABLE} to a Python (3.11 or older) that has dm-reverb."
        )
    return python


class ReverbServer:
    """A Reverb server in a process of its own, for the length of a `with` block.

        with ReverbServer(mix_tables(["pick"])) as server:
            tables = ReverbTables(server.address)

    Entering blocks until the port answers: importing TensorFlow takes the server about 10 s. The server stops when the
    block ends, and also when this process dies, however it dies. It has neither encryption nor passwords, so only this
    machine reaches it, unless `all_interfaces` opens it to everybody; for others there is `tls_proxy.TlsProxy`.

    Attributes:
      port: where it listens; chosen at the first start if it was 0, and kept over restarts.
      log_path: the file that its output goes to.
    """

    def __init__(
        self,
        tables: Sequence[TableConfig],
        port: int = 0,
        checkpoint_dir: pathlib.Path | None = None,
        log_path: pathlib.Path | None = None,
        start_timeout_s: float = 120.0,
        all_interfaces: bool = False,
        hears_interrupts: bool = True,
    ):
        """`hears_interrupts` False: Ctrl-C at the terminal doesn't reach the server; whoever started it decides."""
        index_by_name(tables)
        self._process_group = None if hears_interrupts else 0
        self._all_interfaces = all_interfaces
        self._tables = tables
        self._checkpoint_dir = checkpoint_dir
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port
        self.log_path = log_path or pathlib.Path(tempfile.mkdtemp(prefix="sop-reverb-")) / "server.log"

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether the server's process lives. One that lives may still not answer: ask its tables."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the server and waits for its port. Raises ReplayUnavailableError if it fails or takes too long."""
        if self._process is not None:
            raise ValueError(f"the Reverb server on port {self.port} runs already; stop it first")
        serve = _FOLDER / "serve.py"
        if not serve.exists():
            raise MissingDependencyError(f"no {serve}: the Reverb server starts from a source checkout of this project")
        command = [str(find_reverb_python()), str(serve), "--until-stdin-closes"]
        command += ["--port", str(self.port), "--tables", tables_to_json(self._tables)]
        if self._all_interfaces:
            command.append("--all-interfaces")
        if self._checkpoint_dir is not None:
            command += ["--checkpoint-dir", str(self._checkpoint_dir)]
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        offset = self.log_path.stat().st_size if self.log_path.exists() else 0
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment,
                process_group=self._process_group,
            )  # fmt: skip
        try:
            self.port = self._wait_for_port(self._process, offset)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ends the server, gently first. Does nothing if it isn't running."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """Ends the server at once (SIGKILL), as a crash would; all items are lost. `start` may follow."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_for_port(self, process: subprocess.Popen[bytes], offset: int) -> int:
        deadline_s = time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline_s:
            status = process.poll()
            log = self.log_path.read_bytes()[offset:].decode(errors="replace")
            if (serving := _SERVING.search(log)) is not None:
                return int(serving[1])
            if status is not None:
                raise ReplayUnavailableError(
                    f"the Reverb server ended with status {status}; {self.log_path}: {log[-800:]}"
                )
            time.sleep(_POLL_S)
        raise ReplayUnavailableError(
            f"the Reverb server did not answer within {self._start_timeout_s:g} s; see {self.log_path}"
        )
