"""Seeded schedules of faults: what goes wrong, and when. The same seed gives the same schedule."""

import dataclasses
import enum

import numpy as np


class Fault(enum.StrEnum):
    """One thing that goes wrong.

    KILL_*: SIGKILL, and a restart. OLD_CHECKPOINT: the learner is killed and comes back with an earlier checkpoint.
    TORN_UPLOAD, FLIPPED_BYTES, NOT_AN_EPISODE: an object under a robot's prefix that is cut off, has one bit flipped, is
    something else. DUPLICATE_UPLOAD: an old episode is uploaded once more. RESTORED_SPOOL: a robot is killed and comes back
    with episodes in its spool that the store has already. LINK_CUT: a robot doesn't reach the store for a while. DISK_FULL:
    a robot's writes end with ENOSPC for a while (emulated in its process). CLOCK_BACK, CLOCK_AHEAD: a robot is killed and
    comes back with another time of day. ITEM_TO_NOTHING: an episode's object vanishes from the store.
    """

    KILL_ACTOR = "kill_actor"
    KILL_INTAKE = "kill_intake"
    KILL_LEARNER = "kill_learner"
    KILL_REVERB = "kill_reverb"
    OLD_CHECKPOINT = "old_checkpoint"
    TORN_UPLOAD = "torn_upload"
    FLIPPED_BYTES = "flipped_bytes"
    NOT_AN_EPISODE = "not_an_episode"
    DUPLICATE_UPLOAD = "duplicate_upload"
    RESTORED_SPOOL = "restored_spool"
    LINK_CUT = "link_cut"
    DISK_FULL = "disk_full"
    CLOCK_BACK = "clock_back"
    CLOCK_AHEAD = "clock_ahead"
    ITEM_TO_NOTHING = "item_to_nothing"


@dataclasses.dataclass(frozen=True)
class Step:
    """A fault that strikes once `after_episodes` were announced in all, and `delay_s` later. `number` chooses the victim."""

    fault: Fault
    after_episodes: int
    delay_s: float
    number: int


@dataclasses.dataclass(frozen=True)
class Schedule:
    """One drill. spool_bytes: room in each robot's spool; small ones must give episodes up when a link is cut."""

    seed: int
    num_actors: int
    episodes_per_actor: int
    num_intakes: int
    spool_bytes: int
    steps: tuple[Step, ...]

    @property
    def num_episodes(self) -> int:
        return self.num_actors * self.episodes_per_actor


def make_schedule(seed: int, with_reverb: bool, num_faults: int = 6) -> Schedule:
    """A schedule from its seed. `with_reverb`: one schedule in four kills the replay server too; restarting it takes long."""
    rng = np.random.default_rng([seed, 7])
    num_actors, episodes = 2, 8
    kinds = [fault for fault in Fault if fault is not Fault.KILL_REVERB]
    chosen = [kinds[int(index)] for index in rng.integers(len(kinds), size=num_faults)]
    if with_reverb and rng.random() < 0.25:
        chosen[int(rng.integers(num_faults))] = Fault.KILL_REVERB
    after = np.sort(rng.integers(1, num_actors * episodes + 1, size=num_faults))
    steps = tuple(
        Step(fault, int(num), float(delay), int(number))
        for fault, num, delay, number in zip(
            chosen, after, rng.uniform(0, 0.1, num_faults), rng.integers(2**16, size=num_faults), strict=True
        )
    )
    return Schedule(
        seed=seed,
        num_actors=num_actors,
        episodes_per_actor=episodes,
        num_intakes=1 + int(rng.random() < 0.5),
        spool_bytes=60_000 if rng.random() < 0.3 else 2**30,
        steps=steps,
    )
