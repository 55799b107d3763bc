"""A robot killed at any moment: finished episodes survive, half-written ones never show. Its ledger is the witness."""

import random
import time

from sop_jax.actors.spool import Spool
from sop_jax.drill.checker import locate
from sop_jax.drill.ledger import read_ledgers
from sop_jax.drill.place import Place
from sop_jax.drill.schedule import Schedule
from sop_jax.drill.yard import Yard
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.verify import verify_bytes
from sop_jax.specs.clock import WallClock


def test_kill_9(tmp_path, store_url):
    place, rng = Place(tmp_path), random.Random(0)
    (tmp_path / "ledger").mkdir()
    place.link_cut("robot-0").touch()  # nothing is uploaded before the kill
    schedule = Schedule(0, num_actors=1, episodes_per_actor=10**6, num_intakes=0, spool_bytes=2**30, steps=())
    with Yard(place, schedule, "localhost:1") as yard:
        deadline_s = time.monotonic() + 120
        while len(read_ledgers(place.ledgers())) < 5:
            assert time.monotonic() < deadline_s
            assert yard.check_alive() == []
            time.sleep(0.01)
        time.sleep(rng.uniform(0.05, 0.2))
    entries = read_ledgers(place.ledgers())
    accepted = {entry.episode_id for entry in entries.values() if entry.accepted}
    assert 4 <= len(accepted) <= len(entries) <= len(accepted) + 1  # at most one without an answer

    spool = Spool(place.spool("robot-0"), store := EpisodeStore(store_url), WallClock(), background=False)
    assert spool.num_pending >= len(accepted)
    assert spool.drain(60.0)
    spool.close()
    where = locate(entries, store, [place.spool("robot-0")])
    assert where.violations() == []
    assert accepted <= where.stored <= entries.keys()
    for path in store.list_paths():
        verify_bytes(store.read_bytes(path), path, decode_all_images=True)
    left = sorted(path.name for path in place.spool("robot-0").iterdir())
    assert left in (["lock"], ["lock", "set_aside"])
