"""Where episodes and the records about them lie below the store's root.

`episodes/<robot_id>/<episode_id>.zip`, `quarantine/<robot_id>/<episode_id>.zip.json`,
`retired/<robot_id>/<episode_id>.zip.json` and, while `repair.py` replaces an object, a mark at
`quarantine/<robot_id>/<episode_id>.zip.repair`. The robot's own prefix is what its credentials may write to, so a path that
contradicts itself is refused here, before anything is opened.
"""

from sop_jax.episodes.rejection import reject
from sop_jax.specs.errors import InvalidEpisodeError
from sop_jax.specs.identifiers import robot_of_episode

EPISODES = "episodes/"
QUARANTINE = "quarantine/"
RETIRED = "retired/"
_OBJECT_SUFFIX = ".zip"
_RECORD_SUFFIX = ".zip.json"
_REPAIR_SUFFIX = ".zip.repair"


def episode_path(episode_id: str) -> str:
    """The object that holds an episode. Raises InvalidEpisodeError if the id is malformed."""
    return f"{EPISODES}{robot_of_episode(episode_id)}/{episode_id}{_OBJECT_SUFFIX}"


def quarantine_path(path: str) -> str:
    """The record that says why the episode at `path` is set aside."""
    return _record_path(QUARANTINE, path)


def retired_path(path: str) -> str:
    """The record that says that the episode at `path` is on its way out, or gone."""
    return _record_path(RETIRED, path)


def repair_path(path: str) -> str:
    """The mark that says that somebody is replacing the episode at `path` by a whole copy."""
    return quarantine_path(path).removesuffix(_RECORD_SUFFIX) + _REPAIR_SUFFIX


def robot_of_path(path: str) -> str:
    """The robot whose prefix `path` lies in; equal to the robot in the episode_id."""
    return robot_of_episode(episode_of_path(path))


def episode_of_path(path: str) -> str:
    """The episode_id in an object's path. Raises InvalidEpisodeError if it isn't one that `episode_path` makes."""
    name = path.rpartition("/")[2].removesuffix(_OBJECT_SUFFIX)
    try:
        valid = episode_path(name) == path
    except InvalidEpisodeError:
        valid = False
    if not valid:
        raise reject(
            path,
            "its path is not an episode's",
            expected="episodes/<robot_id>/<robot_id>.<start ns>.<number>.zip",
            got=path,
            fix="Upload through EpisodeStore.put, with the robot's own robot_id.",
        )
    return name


def is_episode_path(path: str) -> bool:
    try:
        episode_of_path(path)
    except InvalidEpisodeError:
        return False
    return True


def quarantined_path(key: str) -> str:
    """The episode that the quarantine record at `key` speaks of: `quarantine_path` undone."""
    return _episode_of_record(QUARANTINE, key)


def is_quarantine_path(key: str) -> bool:
    path = quarantined_path(key)
    return is_episode_path(path) and quarantine_path(path) == key


def episode_of_repair(key: str) -> str | None:
    """The episode that the mark at `key` speaks of: `repair_path` undone. None if no such mark has that name."""
    path = EPISODES + key.removeprefix(QUARANTINE).removesuffix(_REPAIR_SUFFIX) + _OBJECT_SUFFIX
    return path if is_episode_path(path) and repair_path(path) == key else None


def episode_of_retired(key: str) -> str | None:
    """The episode that the record at `key` retires: `retired_path` undone. None if no such record has that name."""
    path = _episode_of_record(RETIRED, key)
    return path if is_episode_path(path) and retired_path(path) == key else None


def _record_path(below: str, path: str) -> str:
    return f"{below}{robot_of_path(path)}/{episode_of_path(path)}{_RECORD_SUFFIX}"


def _episode_of_record(below: str, key: str) -> str:
    return EPISODES + key.removeprefix(below).removesuffix(_RECORD_SUFFIX) + _OBJECT_SUFFIX
