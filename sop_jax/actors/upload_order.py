"""Which waiting episode is uploaded next, and how long after a failure nobody is.

An upload that fails may be the store's fault (no network), or the episode's own (the robot was renamed, and its credentials
are for another prefix; a bad sector under the file). While nothing gets through, nobody can tell the two apart:

1. Everybody waits after a failure, twice as long after each: one request per wait, however many episodes there are. The
   turns go to the oldest and to one of the others alternately, of these to the newest first, because what the oldest
   fails of may be the fault of all the old ones.
2. Once one gets through, whoever failed before it is a suspect. Suspects try again at once, for it may have been the
   store's fault; but from now on only suspects wait for a suspect's failure, with a wait of their own that doubles.

So an episode that can never be uploaded costs the others a few waits, once, and later one request per `max_retry_s`.
"""

from collections.abc import Collection
from typing import final

from sop_jax.actors.seeds import MAX_SEED, derive_seed


@final
class UploadOrder:
    """The order of uploads; not thread-safe, and begun anew with every process.

        while (episode_id := order.choose(waiting, now_ns)) is not None:
            ...                                                # uploads it
            order.done(episode_id, store_answers=True)         # or: order.failed(episode_id, now_ns, its_own=False)

    Waits run from `first_retry_s` to `max_retry_s`, each shortened by up to half, differently per episode.
    """

    def __init__(self, first_retry_s: float, max_retry_s: float):
        self._everybody = _Wait(first_retry_s, max_retry_s)
        self._among_suspects = _Wait(first_retry_s, max_retry_s)
        self._num_tries: dict[str, int] = {}
        self._suspects: set[str] = set()

    def choose(self, waiting: Collection[str], now_ns: int) -> str | None:
        """Whose turn it is, the oldest of those that may try; None if nobody may."""
        if now_ns < self._everybody.until_ns:
            return None
        suspects = self._suspects.intersection(waiting)
        others = [episode_id for episode_id in waiting if episode_id not in suspects]
        other = self._turn_of(others) if others else None
        if not suspects or now_ns < self._among_suspects.until_ns:
            return other
        suspect = min(suspects, key=lambda episode_id: (self._num_tries.get(episode_id, 0), episode_id))
        # While the others fail, a suspect would never get its turn behind an older one of them.
        return suspect if other is None or self._everybody.num_failures else min(suspect, other)

    def num_failures(self, episode_id: str) -> int:
        """Failures since the last success, among those that wait together with this one."""
        return self._wait_of(episode_id).num_failures

    def failed(self, episode_id: str, now_ns: int, *, its_own: bool) -> float:
        """Notes a failure; `its_own` if it is known not to be the store's. Returns how long it means to wait [s]."""
        if its_own:
            self._suspects.add(episode_id)
        self._num_tries[episode_id] = self._num_tries.get(episode_id, 0) + 1
        return self._wait_of(episode_id).lengthen(episode_id, now_ns)

    def done(self, episode_id: str, *, store_answers: bool) -> None:
        """This one needs no more turns. `store_answers`: because the store had it, which tells something about the others."""
        wait = self._wait_of(episode_id)
        self._num_tries.pop(episode_id, None)
        self._suspects.discard(episode_id)
        if not store_answers:
            return
        wait.end()
        self._everybody.end()
        suspected = self._num_tries.keys() - self._suspects
        if suspected:
            self._suspects |= suspected
            self._num_tries.update(dict.fromkeys(suspected, 0))  # their turns come before those of old suspects
            self._among_suspects.until_ns = 0

    def _turn_of(self, others: list[str]) -> str:
        num_failures = self._everybody.num_failures
        if num_failures == 0 or num_failures % 2:
            return min(others)
        return max(others, key=lambda episode_id: (-self._num_tries.get(episode_id, 0), episode_id))

    def _wait_of(self, episode_id: str) -> "_Wait":
        return self._among_suspects if episode_id in self._suspects else self._everybody


class _Wait:
    """A wait that doubles with each failure, until something gets through."""

    def __init__(self, first_s: float, max_s: float):
        self._first_s, self._max_s = first_s, max_s
        self.num_failures = self.until_ns = 0

    def lengthen(self, episode_id: str, now_ns: int) -> float:
        full_s = min(self._max_s, self._first_s * 2.0 ** min(self.num_failures, 30))
        delay_s = full_s * (0.5 + 0.5 * derive_seed(episode_id, self.num_failures) / MAX_SEED)
        self.num_failures += 1
        self.until_ns = now_ns + max(1, round(delay_s * 1e9))
        return delay_s

    def end(self) -> None:
        self.num_failures = self.until_ns = 0
