"""Names that travel the whole loop unchanged: robot_id, task, episode_id, and the replay key made of them."""

import hashlib
import re

from sop_jax.specs.errors import InvalidEpisodeError

# Identifiers become object names and table names, so they hold nothing that a path or a shell could read differently.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_EPISODE = re.compile(
    r"(?P<robot>[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?)\.(?P<started>[0-9]{1,20})\.(?P<count>[0-9]{1,12})"
)


def check_name(kind: str, name: str) -> str:
    """Returns `name` if it may serve as a robot_id or a task. Raises InvalidEpisodeError otherwise."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidEpisodeError(
            f"{kind} {name!r} is not a valid name: expected 1 to 63 characters of a-z, 0-9, '_' and '-', starting and "
            "ending with a letter or digit. Rename it in the robot's or task's configuration."
        )
    return name


def make_episode_id(robot_id: str, started_ns: int, count: int) -> str:
    """`<robot_id>.<actor start, ns>.<episode number since then>`: unique without asking anybody."""
    check_name("robot_id", robot_id)
    if started_ns < 0 or count < 0:
        raise InvalidEpisodeError(
            f"episode of {robot_id}: started_ns and count must be >= 0, got {started_ns}, {count}"
        )
    return f"{robot_id}.{started_ns:020d}.{count:06d}"


def robot_of_episode(episode_id: str) -> str:
    """The robot_id inside an episode_id. Raises InvalidEpisodeError if the id isn't one that `make_episode_id` makes."""
    match = _EPISODE.fullmatch(episode_id) if isinstance(episode_id, str) else None
    if match is None:
        raise InvalidEpisodeError(f"episode_id {episode_id!r} is malformed: expected '<robot_id>.<start ns>.<number>'")
    return match["robot"]


def number_of_episode(episode_id: str) -> int:
    """The episode number inside an episode_id. Raises InvalidEpisodeError as `robot_of_episode` does."""
    robot_of_episode(episode_id)
    return int(episode_id.rpartition(".")[2])


def item_key(episode_id: str, segment: int) -> int:
    """The replay key of a segment: a 64-bit hash, so that inserting the same segment twice changes nothing.

    Never 0, which Reverb takes for 'no key'.
    """
    digest = hashlib.blake2b(f"{episode_id}/{segment}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


def online_table(task: str) -> str:
    return f"{task}/online"


def offline_table(task: str) -> str:
    return f"{task}/offline"


def task_of_table(table: str) -> str:
    return table.rpartition("/")[0]
