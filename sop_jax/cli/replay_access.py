"""How a command reaches a replay server: its address, and the certificate to show there."""

import os
import pathlib

from sop_jax.replay.reverb_tables import ReverbTables
from sop_jax.replay.tls import TlsFiles

TLS_VARIABLE = "SOP_REPLAY_TLS"
"""Environment variable that stands for --replay-tls where that isn't given."""


def open_tables(address: str, tls: pathlib.Path | None = None) -> ReverbTables:
    """The tables at HOST:PORT; with TLS if a folder is given (ca.crt, tls.crt, tls.key), or named by SOP_REPLAY_TLS.

    Raises ConfigError if the folder lacks something.
    """
    folder = os.environ.get(TLS_VARIABLE, "") if tls is None else str(tls)
    return ReverbTables(address, TlsFiles.in_folder(pathlib.Path(folder)) if folder else None)
