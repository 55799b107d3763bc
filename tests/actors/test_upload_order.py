"""Nobody waits for an episode that can't be uploaded, and nobody hammers a store that is away."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.actors.upload_order import UploadOrder

FIRST_S, MAX_S = 1.0, 60.0


class Uploads:
    """Episodes "00", "01" ... that wait, a store that takes those that aren't `bad` unless it is away, and time."""

    def __init__(self, num: int, bad=()):
        self.order = UploadOrder(FIRST_S, MAX_S)
        self.waiting = {f"{number:04d}": None for number in range(num)}
        self.bad, self.away = {f"{number:04d}" for number in bad}, False
        self.now_s = 0.0
        self.tries: list[tuple[float, str]] = []
        self.stored: list[str] = []

    def pass_time(self, duration_s: float, step_s: float = 0.05) -> None:
        end_s = self.now_s + duration_s
        while self.now_s < end_s:
            self.now_s += step_s
            now_ns = round(self.now_s * 1e9)
            while (episode_id := self.order.choose(self.waiting, now_ns)) is not None:
                self.tries.append((self.now_s, episode_id))
                if self.away or episode_id in self.bad:
                    self.order.failed(episode_id, now_ns, its_own=False)
                else:
                    del self.waiting[episode_id]
                    self.stored.append(episode_id)
                    self.order.done(episode_id, store_answers=True)

    def num_tries(self, since_s: float) -> int:
        return sum(time_s > since_s for time_s, _ in self.tries)


def test_without_failures_the_oldest_goes_first():
    uploads = Uploads(5)
    uploads.pass_time(0.05)
    assert uploads.stored == ["0000", "0001", "0002", "0003", "0004"]


def test_while_the_store_is_away_one_request_per_wait_however_many_wait():
    uploads = Uploads(300)
    uploads.away = True
    uploads.pass_time(600.0)
    assert 10 <= len(uploads.tries) <= 30
    gaps_s = [later - earlier for (earlier, _), (later, _) in zip(uploads.tries, uploads.tries[1:], strict=False)]
    for gap_s, full_s in zip(gaps_s, [1, 2, 4, 8, 16, 32, 60, 60], strict=False):
        assert full_s / 2 <= gap_s <= full_s + 0.1
    turns = [episode_id for _, episode_id in uploads.tries[:7]]
    assert turns == ["0000", "0000", "0299", "0000", "0298", "0000", "0297"]
    uploads.away = False
    uploads.pass_time(60.0)
    assert len(uploads.stored) == 300
    assert len({time_s for time_s, _ in uploads.tries[-300:]}) == 1  # once one got through, all do


def test_old_episodes_of_a_renamed_robot_hold_up_no_new_one():
    uploads = Uploads(500, bad=range(500))
    uploads.pass_time(600.0)  # the new name's first episode ends only now
    uploads.waiting["1000"] = None
    uploads.pass_time(2 * MAX_S + 0.1)  # every other turn is the newest's
    assert uploads.stored == ["1000"]
    before_s = uploads.now_s
    for number in range(1001, 1101):
        uploads.waiting[str(number)] = None
        uploads.pass_time(40.0, step_s=0.5)
    assert len(uploads.stored) >= 100
    assert uploads.num_tries(before_s) < 100 * 14  # each success, then 1 + 2 + 4 ... s at most


def test_once_it_is_known_what_cant_be_uploaded_the_rest_waits_for_nothing():
    uploads = Uploads(21, bad=range(20))
    uploads.pass_time(300.0)
    assert uploads.stored == ["0020"]
    for number in range(21, 60):
        uploads.waiting[f"{number:04d}"] = None
        uploads.pass_time(MAX_S)
    after_s = uploads.now_s
    for number in range(60, 90):
        uploads.waiting[f"{number:04d}"] = None
        uploads.pass_time(0.1)
        assert uploads.stored[-1] == f"{number:04d}"
        uploads.pass_time(30.0)
    assert uploads.num_tries(after_s) - 30 <= 2 * 30 * 30 / MAX_S + 2  # one request per wait among the bad ones


def test_one_failure_of_many_behind_a_long_queue_is_made_good_at_once():
    """The queue need not be empty for the dropped one to get its turn."""
    uploads = Uploads(100, bad=[0])
    uploads.pass_time(1.5)
    assert [episode_id for _, episode_id in uploads.tries] == ["0000", "0000"]
    uploads.bad.clear()
    uploads.away = True
    uploads.pass_time(2.0)
    assert [episode_id for _, episode_id in uploads.tries] == ["0000", "0000", "0099"]
    uploads.away = False
    uploads.pass_time(4.0)
    assert uploads.stored == [f"{number:04d}" for number in range(100)]


def test_what_is_known_to_be_the_episodes_own_fault_costs_the_others_no_wait():
    order = UploadOrder(FIRST_S, MAX_S)
    order.failed("a", 0, its_own=True)
    assert order.choose(["a", "b"], 1) == "b"
    assert order.choose(["a"], 1) is None
    assert order.choose(["a", "b"], 10**9) == "a"


@settings(max_examples=40)
@given(bad=st.sets(st.integers(0, 11), max_size=11), away_s=st.sampled_from([0.0, 30.0]))
def test_all_that_can_be_uploaded_is(bad, away_s):
    uploads = Uploads(12, bad)
    uploads.away = away_s > 0
    uploads.pass_time(away_s, step_s=0.5)
    uploads.away = False
    since_s = uploads.now_s
    uploads.pass_time(3 * 12 * MAX_S, step_s=0.5)  # every second turn is another one's
    assert set(uploads.stored) == {f"{number:04d}" for number in range(12)} - uploads.bad
    longest_waits = 2 * 3 * 12  # half of MAX_S at least
    assert uploads.num_tries(since_s) <= 2 * longest_waits + 12 * 8  # each success begins two rows of waits anew
    uploads.bad.clear()
    uploads.pass_time(2 * MAX_S, step_s=0.5)
    assert not uploads.waiting
