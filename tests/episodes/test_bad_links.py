"""Robots, intake and learner at the far end of a bad link: uploads to S3, inserts and samples through TLS.

Slow, as root, with nginx, the Reverb server's environment and the S3 server's (`launch/setup.sh s3`):
python -m pytest tests/episodes/test_bad_links.py -m slow
"""

import contextlib
import dataclasses
import pathlib
import subprocess
import threading
from collections.abc import Iterator, Sequence

import pytest
from bad_link import NEAR, BadLink, LinkQuality
from s3_server import find_moto_python, s3_server, store_spec

from sop_jax.drill.drill import TABLE, run_schedule
from sop_jax.drill.ledger import read_ledgers
from sop_jax.drill.place import Place
from sop_jax.drill.schedule import Schedule
from sop_jax.drill.yard import Surroundings
from sop_jax.replay.server import ReverbServer, find_reverb_python
from sop_jax.replay.tls_proxy import TlsProxy, find_nginx
from sop_jax.specs.errors import MissingDependencyError

CA_SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "tls" / "ca.sh"
NUM_ROBOTS, NUM_EPISODES = 2, 12

pytestmark = [pytest.mark.slow, pytest.mark.reverb, pytest.mark.timeout(1800)]


@dataclasses.dataclass(frozen=True)
class Trouble:
    """A link's quality; its states from the third episode on, (is_up, seconds) each; `for_ever`: again and again."""

    quality: LinkQuality
    states: Sequence[tuple[bool, float]] = ()
    for_ever: bool = False


TROUBLES = {
    "a sound link": Trouble(LinkQuality()),
    "100 ms +- 20": Trouble(LinkQuality(0.1, 0.02)),
    "2% lost": Trouble(LinkQuality(0.02, loss=0.02)),
    "10% lost": Trouble(LinkQuality(0.02, loss=0.1)),
    "cut for 20 s": Trouble(LinkQuality(0.02), ((False, 20.0), (True, 1.0))),
    "2 s up, 2 s down": Trouble(LinkQuality(0.02), ((False, 2.0), (True, 2.0)), for_ever=True),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_nothing_is_lost_doubled_or_torn(trouble, tmp_path, monkeypatch):
    try:
        find_nginx()
        find_reverb_python()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    find_moto_python()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    with BadLink(trouble.quality) as link, s3_server(str(tmp_path / "s3.log"), NEAR) as endpoint:
        place = Place(tmp_path / "drill", store_spec(endpoint, "run"))
        with ReverbServer([TABLE], log_path=tmp_path / "reverb.log", start_timeout_s=600) as server:
            certificates = _make_certificates(tmp_path / "ca")
            with (
                TlsProxy(certificates / "replay", server.port, folder=tmp_path / "nginx") as proxy,
                _played(trouble, link, place),
            ):
                around = Surroundings(link.far, f"{NEAR}:{proxy.port}", str(certificates), pause_s=2.0)
                schedule = Schedule(7, NUM_ROBOTS, NUM_EPISODES, num_intakes=1, spool_bytes=2**30, steps=())
                verdict = run_schedule(place, schedule, server.address, deadline_s=600, around=around)
    print(verdict)
    assert verdict.problems == ()
    assert verdict.num_accepted == verdict.num_stored == NUM_ROBOTS * NUM_EPISODES
    assert verdict.num_given_up == 0
    assert verdict.num_items >= verdict.num_stored
    assert verdict.num_samples > 0


@contextlib.contextmanager
def _played(trouble: Trouble, link: BadLink, place: Place) -> Iterator[None]:
    """The link's states, one after the other, while the block runs."""
    stop = threading.Event()

    def play() -> None:
        while len(read_ledgers(place.ledgers())) < 3 and not stop.wait(0.1):
            pass
        repeat = True
        while repeat and not stop.is_set():
            for is_up, duration_s in trouble.states:
                link.set_up(is_up)
                if stop.wait(duration_s):
                    return
            repeat = trouble.for_ever

    player = threading.Thread(target=play)
    if trouble.states:
        player.start()
    try:
        yield
    finally:
        stop.set()
        if trouble.states:
            player.join()


def _make_certificates(folder: pathlib.Path) -> pathlib.Path:
    for words in (("init", folder), ("server", folder, "replay", NEAR, "localhost"),
                  *(("client", folder, role, role) for role in ("intake", "learner"))):  # fmt: skip
        subprocess.run([CA_SCRIPT, *words], check=True, capture_output=True)
    return folder
