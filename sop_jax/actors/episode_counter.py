"""The number of a robot's next episode, kept on its disk over restarts: it decides which scene the episode begins with.

How many episodes the store holds can't replace it: retention removes some, a spool sets some aside, and a robot that counts
those that are left meets scenes again.
"""

import hashlib
import json
import os
import pathlib
from typing import Any, final

from sop_jax.actors.durable_files import write_durably


@final
class EpisodeCounter:
    """A small file in the spool's directory; whoever holds the spool's lock may write it.

        counter = EpisodeCounter(directory, store_url)
        first_episode = max(counter.next_number(), what_the_store_says)
        counter.note(number)             # after each episode

    It counts for one store: with another one the robot begins another run, and its scenes begin anew.
    """

    def __init__(self, directory: str | os.PathLike[str], store_url: str):
        self._path = pathlib.Path(directory) / "next_episode.json"
        # The URL itself may hold credentials.
        self._store = hashlib.sha256(store_url.rstrip("/").encode()).hexdigest()[:16]

    def next_number(self) -> int:
        """The number that no episode has had; 0 if nobody has counted for this store, or the file is damaged."""
        store, number = self._read()
        return number if store == self._store and type(number) is int and 0 <= number < 10**12 else 0

    @property
    def is_of_another_store(self) -> bool:
        """Whether the robot has counted here for another store than this one."""
        store, _ = self._read()
        return store is not None and store != self._store

    def note(self, number: int) -> None:
        """An episode of this number is over. Durable once it returns; raises OSError, and then the old count stands."""
        write_durably(self._path, json.dumps({"store": self._store, "next": number + 1}).encode())

    def _read(self) -> tuple[Any, Any]:
        """The store's digest and the number; None each if there is no file, or it is damaged."""
        try:
            found = json.loads(self._path.read_bytes())
            return found["store"], found["next"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None, None
