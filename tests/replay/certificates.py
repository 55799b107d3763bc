"""A private CA for tests, made by the script that people use."""

import pathlib
import subprocess

import pytest

from sop_jax.replay.tls_proxy import find_nginx
from sop_jax.specs.errors import MissingDependencyError

CA_SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "tls" / "ca.sh"


def run_ca(*words: str | pathlib.Path, days: int | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", **({} if days is None else {"DAYS": str(days)})}
    return subprocess.run([CA_SCRIPT, *words], capture_output=True, text=True, check=False, env=environment)


def make_certificates(folder: pathlib.Path) -> pathlib.Path:
    """A CA with a server's certificate for localhost and one for each role; returns its folder."""
    for words in (
        ("init", folder),
        ("server", folder, "replay", "localhost", "127.0.0.1"),
        *(("client", folder, role, f"{role}-0") for role in ("intake", "learner", "doctor")),
    ):
        done = run_ca(*words)
        assert done.returncode == 0, done.stderr
    return folder


def need_nginx() -> None:
    """Skips the test where no nginx is installed."""
    try:
        find_nginx()
    except MissingDependencyError as error:
        pytest.skip(str(error))
