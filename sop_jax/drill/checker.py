"""The oracle: what the ledgers say was accepted, against what spools, store, tables and learner have of it."""

import dataclasses
import hashlib
import json
import pathlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from sop_jax.actors.spool_room import MARK_SUFFIX
from sop_jax.drill.ledger import Entry
from sop_jax.episodes import paths
from sop_jax.episodes.store import EpisodeStore
from sop_jax.specs.identifiers import item_key, robot_of_episode


@dataclasses.dataclass(frozen=True)
class Whereabouts:
    """Where an accepted episode is, each id in one of them only.

    stored: whole in the store. waiting: in a spool. given_up: a full spool's mark. vanished: the drill removed its object.
    missing: nowhere. altered: in the store with other bytes. unknown: in the store, and no ledger announced it.
    """

    stored: frozenset[str]
    waiting: frozenset[str]
    given_up: frozenset[str]
    vanished: frozenset[str]
    missing: frozenset[str]
    altered: frozenset[str]
    unknown: frozenset[str]

    def violations(self) -> list[str]:
        found = (("missing", self.missing), ("altered", self.altered), ("unknown to every ledger", self.unknown))
        return [f"episode {episode_id} is {word}" for word, ids in found for episode_id in sorted(ids)]


def locate(
    entries: Mapping[str, Entry],
    store: EpisodeStore,
    spools: Iterable[pathlib.Path],
    damaged: Iterable[str] = (),
    vanished: Iterable[str] = (),
    set_aside: Iterable[str] = (),
) -> Whereabouts:
    """Looks for every accepted episode. Reads every object in full.

    Args:
      damaged: paths that hold no episode by intent, and aren't looked at.
      vanished: paths that were removed by intent.
      set_aside: paths that are quarantined or retired: in the store, and not to be trained on.
    """
    waiting, given_up = _spooled(spools)
    ignored, gone = set(damaged), {paths.episode_of_path(path) for path in vanished}
    stored, altered, unknown = set(), set(), set()
    for path in store.list_paths():
        episode_id = paths.episode_of_path(path)
        if path in ignored:
            continue
        entry = entries.get(episode_id)
        if entry is None:
            unknown.add(episode_id)
        elif hashlib.sha256(store.read_bytes(path)).hexdigest() != entry.sha256:
            altered.add(episode_id)
        else:
            stored.add(episode_id)
    accepted = {entry.episode_id for entry in entries.values() if entry.accepted}
    known_away = {paths.episode_of_path(path) for path in set_aside}
    found = stored | waiting | given_up | altered | gone | known_away
    return Whereabouts(
        stored=frozenset(stored),
        waiting=frozenset(waiting - stored),
        given_up=frozenset(given_up - stored - waiting),
        vanished=frozenset(gone - stored),
        missing=frozenset(accepted - found),
        altered=frozenset(altered),
        unknown=frozenset(unknown),
    )


def judge_give_ups(
    given_up: Iterable[str], entries: Mapping[str, Entry], spool_bytes: int, short_of_room: Collection[str]
) -> list[str]:
    """Which episodes were given up without need.

    spool_bytes: room in each robot's spool; one that holds all that its robot ever made is never full. short_of_room: robots
    whose disk was full.
    """
    made: Counter[str] = Counter()
    for entry in entries.values():
        made[robot_of_episode(entry.episode_id)] += entry.num_bytes
    return [
        f"episode {episode_id} was given up, though its spool had room and its disk wasn't full"
        for episode_id in sorted(given_up)
        if (robot := robot_of_episode(episode_id)) not in short_of_room and made[robot] <= spool_bytes
    ]


def expected_keys(entries: Iterable[Entry], segment_length: int) -> dict[int, str]:
    """Key -> episode_id of every item that the tables must hold, told from the ledgers alone."""
    keys = {}
    for entry in entries:
        if entry.trains and entry.image_frames:
            num_segments = -(-len(entry.image_frames) // segment_length)
            for frames in np.array_split(np.array(entry.image_frames), num_segments):
                keys[item_key(entry.episode_id, int(frames[0]))] = entry.episode_id
    return keys


def judge_table(
    seen: Mapping[int, str], size: int, must: Mapping[int, str], may: Mapping[int, str], complete: bool
) -> list[str]:
    """What is wrong with a table that holds `size` items, of which `seen` (key -> episode_id) were drawn.

    A table never holds a key twice, so nothing is doubled if it holds no other keys than it may, and not more of them.
    `complete`: every item was drawn, so that what wasn't is missing.
    """
    problems = [
        f"item {key} of episode {episode_id} has no place in the table"
        for key, episode_id in seen.items()
        if may.get(key) != episode_id
    ]
    if size > len(may):
        problems.append(f"the table holds {size} items, {len(may)} at most have a place in it")
    if size < len(must):
        problems.append(f"the table holds {size} items, {len(must)} must be there")
    if complete:
        missing = sorted({must[key] for key in must.keys() - seen.keys()})
        problems += [f"an item of episode {episode_id} is missing from the table" for episode_id in missing]
    return problems


def judge_samples(lines: Iterable[Mapping[str, object]], may: Mapping[int, str], gone: Iterable[str]) -> list[str]:
    """What is wrong with what the learner sampled. `gone`: episodes whose objects were removed by intent."""
    problems: Counter[str] = Counter()
    away = set(gone)
    for line in lines:
        episode_id, result = str(line["episode_id"]), str(line["result"])
        if may.get(int(str(line["key"]))) != episode_id:
            problems[f"the learner sampled episode {episode_id}, which no robot announced or which must not train"] += 1
        elif result == "gone" and episode_id not in away:
            problems[f"the learner sampled an item of {episode_id}, and its object was not there"] += 1
        elif result not in ("good", "gone"):
            problems[f"the learner sampled {episode_id}: {result}"] += 1
    return [f"{text} ({num} times)" for text, num in problems.items()]


def read_lines(path: pathlib.Path) -> list[dict]:
    """The JSON lines of a file; what a kill cut off is passed over."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_bytes().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def _spooled(spools: Iterable[pathlib.Path]) -> tuple[set[str], set[str]]:
    """Episodes that wait in these spools, and those that they gave up."""
    waiting, given_up = set(), set()
    for directory in spools:
        for path in directory.iterdir() if directory.exists() else ():
            if path.suffix == ".zip":
                waiting.add(path.stem)
            elif path.name.endswith(MARK_SUFFIX):
                given_up.add(path.name.removesuffix(f".zip{MARK_SUFFIX}"))
    return waiting, given_up
