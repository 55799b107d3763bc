"""One set of tables for both implementations, and one Reverb server for all tests that can share it."""

import pathlib
from collections.abc import Iterator

import pytest
from contract_tables import CONTRACT_TABLES
from reverb_environment import need_reverb

from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.reverb_tables import ReverbTables
from sop_jax.replay.server import ReverbServer
from sop_jax.specs.interfaces import ReplayTables
from tests.replay.intake_parts import FlakyStore


@pytest.fixture(scope="session")
def reverb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReverbServer]:
    need_reverb()
    log: pathlib.Path = tmp_path_factory.mktemp("reverb") / "server.log"
    with ReverbServer(CONTRACT_TABLES, log_path=log, start_timeout_s=240.0) as server:
        yield server


@pytest.fixture(params=["local", pytest.param("reverb", marks=pytest.mark.reverb)])
def tables(request: pytest.FixtureRequest) -> Iterator[ReplayTables]:
    """Empty tables of each implementation in turn."""
    if request.param == "local":
        made: ReplayTables = LocalTables(CONTRACT_TABLES, seed=0)
    else:
        made = ReverbTables(request.getfixturevalue("reverb_server").address)
        for config in CONTRACT_TABLES:
            made.reset(config.name)
    yield made
    made.close()


@pytest.fixture
def store(store_url: str) -> FlakyStore:
    return FlakyStore(store_url)
