"""A local S3 server (moto, from PyPI), in an environment of its own that `launch/setup.sh s3` makes."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator

import pytest

PYTHON = pathlib.Path(__file__).parents[2] / "launch" / "object_store" / ".venv" / "bin" / "python"
BUCKET = "test-bucket"
_START_TIMEOUT_S = 180.0


def find_moto_python() -> str:
    """Skips the test where no moto is installed."""
    if not PYTHON.exists():
        pytest.skip("no S3 server: launch/setup.sh s3 makes its environment")
    return str(PYTHON)


@contextlib.contextmanager
def s3_server(log: str, host: str = "127.0.0.1") -> Iterator[str]:
    """The endpoint of a server that holds one empty bucket, `BUCKET`."""
    python = find_moto_python()
    with contextlib.closing(socket.socket()) as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with open(log, "wb") as output:
        server = subprocess.Popen(
            [python, "-m", "moto.server", "-H", host, "-p", str(port)],
            stdout=output, stderr=subprocess.STDOUT, env=environment,
        )  # fmt: skip
    endpoint = f"http://{host}:{port}"
    try:
        _make_bucket(server, endpoint)
        yield endpoint
    finally:
        server.kill()
        server.wait()


def store_spec(endpoint: str, prefix: str) -> str:
    """A store root below `prefix`, for `EpisodeStore` and `WeightStore`."""
    spec = {"driver": "s3", "bucket": BUCKET, "path": f"{prefix}/", "endpoint": endpoint, "aws_region": "us-east-1"}
    return json.dumps(spec)


def _make_bucket(server: subprocess.Popen[bytes], endpoint: str) -> None:
    request = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except OSError as error:
            if server.poll() is not None or time.monotonic() > deadline_s:
                raise AssertionError(f"the S3 server did not start at {endpoint}") from error
            time.sleep(0.1)
        else:
            return
