"""A store that notes what is asked of it, and dies when it is told to."""

from sop_jax.episodes.store import EpisodeStore


class Killed(BaseException):
    """The process ends here."""


class Recorder:
    """A store's key-value store. `requests` are (kind, key): get, list, create, replace (an unconditional write), delete.

    dies_at: raises Killed at this write or delete, counted from 1; `done_first`: once it is done.
    """

    def __init__(self, root, dies_at: int | None = None, done_first: bool = False):
        self.root, self.dies_at, self.done_first = root, dies_at, done_first
        self.requests: list[tuple[str, str]] = []
        self.num_writes = 0

    def __getattr__(self, name):
        return getattr(self.root, name)

    def read(self, key, **options):
        self.requests.append(("get", key))
        return self.root.read(key, **options)

    def list(self, *ranges):
        self.requests.append(("list", ranges[0].inclusive_min.decode()))
        return self.root.list(*ranges)

    def write(self, key, value, **conditions):
        kind = "delete" if value is None else "create" if conditions == {"if_equal": b"\x02"} else "replace"
        self.requests.append((kind, key))
        self.num_writes += 1
        if self.num_writes == self.dies_at and not self.done_first:
            raise Killed
        answer = self.root.write(key, value, **conditions)
        answer.result()
        if self.num_writes == self.dies_at:
            raise Killed
        return answer


def watched(url: str, dies_at: int | None = None, done_first: bool = False) -> tuple[EpisodeStore, Recorder]:
    """A store and its recorder."""
    store = EpisodeStore(url)
    recorder = Recorder(store.root, dies_at, done_first)
    store._kvstore = recorder  # pyright: ignore[reportAttributeAccessIssue]
    return store, recorder
