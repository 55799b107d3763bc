"""What `sop replay` keeps alive: the Reverb server, and with TLS nginx before it."""

import contextlib
import pathlib
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from sop_jax.cli.arguments import UsageError
from sop_jax.replay.server import ReverbServer
from sop_jax.replay.tables import TableConfig
from sop_jax.replay.tls import TlsFiles
from sop_jax.replay.tls_proxy import TlsProxy, find_nginx


class ServiceArguments(Protocol):
    """The part of a command line that says how to serve."""

    @property
    def port(self) -> int: ...
    @property
    def tls(self) -> pathlib.Path | None: ...
    @property
    def tls_folder(self) -> pathlib.Path | None: ...
    @property
    def all_interfaces(self) -> bool: ...
    @property
    def log(self) -> pathlib.Path | None: ...


class ReplayService:
    """Server and proxy, for the length of a `with` block. What the proxy lacks is told before Reverb starts."""

    def __init__(self, arguments: ServiceArguments, tables: Sequence[TableConfig]):
        if arguments.tls is None:
            port = arguments.port
        elif arguments.all_interfaces:
            raise UsageError("--tls asks for certificates, --all-interfaces lets everybody in: choose one")
        else:
            TlsFiles.in_folder(arguments.tls)
            find_nginx()
            port = 0
        self._arguments = arguments
        self._server = ReverbServer(tables, port=port, log_path=arguments.log, all_interfaces=arguments.all_interfaces)
        self._proxy: TlsProxy | None = None
        self._stack = contextlib.ExitStack()

    @property
    def inner_address(self) -> str:
        """Where this machine's own intake finds the server, past the proxy."""
        return self._server.address

    @property
    def address(self) -> str:
        """What clients are told."""
        return self._server.address if self._proxy is None else f"port {self._proxy.port} with TLS"

    @property
    def is_running(self) -> bool:
        return self._server.is_running

    def restart(self) -> None:
        """Starts a server that doesn't answer again, at the port that it had."""
        self._server.kill()
        self._server.start()

    def mend_proxy(self) -> bool:
        """Starts nginx again if it has ended; returns whether it had."""
        if self._proxy is None or self._proxy.is_running:
            return False
        self._proxy.stop()
        self._proxy.start()
        return True

    def __enter__(self) -> Self:
        self._stack.enter_context(self._server)
        if self._arguments.tls is not None:
            proxy = TlsProxy(self._arguments.tls, self._server.port, self._arguments.port, self._arguments.tls_folder)
            with contextlib.ExitStack() as undo:
                undo.callback(self._stack.close)
                self._proxy = self._stack.enter_context(proxy)
                undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
