from hypothesis import given
from hypothesis import strategies as st

from sop_jax.actors.seeds import derive_seed, episode_seed, inference_seed

names = st.text(alphabet="abcz019_-", min_size=1, max_size=8)


def test_seeds_never_change():
    """Golden numbers: an old episode's seed must mean the same scene for ever."""
    assert episode_seed(0, "robot-0", 0) == 1826913399
    assert episode_seed(0, "robot-0", 1) == 1316351962
    assert inference_seed(12, 8) == 1338753012


@given(st.integers(0, 2**40), names, st.integers(0, 10**6))
def test_seeds_fit_every_generator(base, robot_id, count):
    assert 0 <= episode_seed(base, robot_id, count) < 2**31


def test_neighbours_differ():
    seeds = {episode_seed(base, f"r{robot}", count) for base in range(5) for robot in range(5) for count in range(40)}
    assert len(seeds) == 1000


def test_a_number_and_its_text_differ():
    assert derive_seed(1) != derive_seed("1")
    assert derive_seed("a", "b") != derive_seed("a/b")
