import numpy as np

from sop_jax.interchange.lerobot.statistics import PictureStats, aggregate, vector_stats


def test_of_one_feature():
    stats = vector_stats(np.array([[1.0, 10.0], [3.0, 10.0], [5.0, 10.0], [7.0, 10.0]]))
    expected = {"min": [1, 10], "max": [7, 10], "mean": [4, 10], "std": [5**0.5, 0], "count": [4]}
    for name, values in (expected | {"q01": [1, 10], "q50": [3, 10], "q99": [7, 10]}).items():
        np.testing.assert_allclose(stats[name], values)


def test_of_flags():
    stats = vector_stats(np.array([True, False, False, False]))
    assert (stats["mean"].tolist(), stats["max"].tolist(), stats["q50"].tolist()) == ([0.25], [1.0], [0.0])


def test_of_pictures():
    stats = PictureStats()
    stats.add(np.full((2, 2, 3), 51, np.uint8))
    stats.add(np.stack([np.full((2, 2), level, np.uint8) for level in (51, 102, 255)], axis=-1))
    found = stats.stats()
    assert found["mean"].shape == (3, 1, 1)
    np.testing.assert_allclose(found["mean"].ravel(), [0.2, 0.3, 0.6])
    np.testing.assert_allclose(found["std"].ravel(), [0, 0.1, 0.4], atol=1e-9)
    np.testing.assert_allclose(found["max"].ravel(), [0.2, 0.4, 1.0])
    np.testing.assert_allclose(found["q50"].ravel(), [0.2, 0.2, 0.2])
    np.testing.assert_allclose(found["q90"].ravel(), [0.2, 0.4, 1.0])
    assert found["count"].tolist() == [2]


def test_of_several_episodes_is_that_of_all_frames():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(num, 3)) for num in (5, 2, 11)]
    together, whole = aggregate([vector_stats(part) for part in parts]), vector_stats(np.concatenate(parts))
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(together[name], whole[name])
    # LeRobot's rule for quantiles, by hand: the episodes' medians, weighted by their lengths.
    medians = [vector_stats(part)["q50"] for part in parts]
    np.testing.assert_allclose(together["q50"], (5 * medians[0] + 2 * medians[1] + 11 * medians[2]) / 18)
