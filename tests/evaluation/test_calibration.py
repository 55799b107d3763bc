import jax.numpy as jnp
import numpy as np
import pytest

from sop_jax.algorithms.recap.returns import returns
from sop_jax.episodes.episode_images import HeldImages
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.evaluation.calibration import area_under_curve, calibrate, judge
from sop_jax.evaluation.calibration_report import render
from sop_jax.models.value.distribution import two_hot
from sop_jax.specs.records import NO_POLICY, Outcome, Source
from tests.algorithms.value_cases import ScriptedValues, value_function

SPEC = make_spec(image_size=16, camera_names=("head",))


class Foreseeing(ScriptedValues):
    """Predicts the return, `script[0]` too high."""

    def distributions(self, manifest, arrays, images):
        wanted = returns(self.rewards(manifest))[arrays.image_frames] + self.script[0]
        return np.asarray(two_hot(jnp.asarray(wanted, jnp.float32), 21))


def foreseeing(error: float) -> Foreseeing:
    base = value_function()
    return Foreseeing(base.bundle, base.returns, base.tasks, (error,))


def judged(values, seed: int, outcome: Outcome, num_frames: int, held_out=True, **options):
    episode = make_episode(seed, num_frames, 2, spec=SPEC, outcome=outcome, **options)
    stages = ["reach" if frame < 4 else "place" for frame in range(num_frames)]
    return judge(values, episode.manifest, episode.arrays, HeldImages(episode), held_out, stages)


def test_area_under_curve_by_hand():
    scores = np.array([0.1, 0.4, 0.4, 0.8])
    # pairs (positive, negative): (.4, .1) right, (.4, .4) tied, (.8, .1) and (.8, .4) right
    assert area_under_curve(scores, np.array([False, True, False, True])) == pytest.approx(3.5 / 4)
    assert area_under_curve(scores, np.array([True, False, False, False])) == 0.0
    assert area_under_curve(scores, np.ones(4, bool)) is None


def test_numbers_by_hand():
    values = foreseeing(0.05)  # T_max 10, C_fail 10: a frame is 0.05
    episodes = [
        judged(values, 1, Outcome.SUCCESS, 6),  # returns at 0, 2, 4: -.25, -.15, -.05
        judged(values, 2, Outcome.TIMEOUT, 10),  # at 0, 2 .. 8: -.95, -.85, -.75, -.65, -.55
        judged(values, 3, Outcome.SUCCESS, 4, held_out=False),  # at 0, 2: -.15, -.05
    ]
    (task,) = calibrate(episodes, values)
    assert (task.num_episodes, task.num_successes, task.num_frames) == (2, 1, 8)
    assert task.frames_per_unit == 20
    assert task.mean_abs_error == pytest.approx(0.05, abs=1e-6)
    assert task.root_mean_square_error == pytest.approx(0.05, abs=1e-6)
    assert task.bias == pytest.approx(0.05, abs=1e-6)
    assert task.auc == task.auc_first_frame == 1.0
    assert task.auc_of_policy == 1.0
    # V's error is constant, so no advantage comes near the threshold of 0.4.
    assert (task.positive_successes, task.positive_failures) == (0.0, 0.0)
    # without looking: the training episode's mean in its first second, -.1
    realised = np.array([-0.25, -0.15, -0.05, -0.95, -0.85, -0.75, -0.65, -0.55])
    assert task.baseline_error == pytest.approx(np.abs(realised + 0.1).mean())
    # The last frame's prediction -.5 lies on the border of the two: half of it counts as success.
    assert task.brier == pytest.approx(0.25 / 8, abs=1e-6)
    assert task.calibration_error == pytest.approx(0.5 / 8, abs=1e-6)
    reach, place = task.by_stage
    assert (reach.name, reach.num_frames, reach.num_episodes) == ("reach", 4, 2)
    assert reach.realised == pytest.approx((-0.25 - 0.15 - 0.95 - 0.85) / 4)
    assert place.predicted == pytest.approx((0.0 - 0.7 - 0.6 - 0.5) / 4, abs=1e-6)
    assert [part.name for part in task.by_elapsed] == ["0 to 1 s"]
    assert sum(part.num_frames for part in task.by_prediction) == 8


def test_demonstrations_do_not_count_as_the_policys():
    values = foreseeing(0.0)
    demonstration = judged(
        values, 1, Outcome.SUCCESS, 6, source=Source.OFFLINE, policy_version=NO_POLICY, robot_id="demo"
    )
    (task,) = calibrate([demonstration, judged(values, 2, Outcome.FAILURE, 6)], values)
    assert task.auc == 1.0
    assert task.auc_of_policy is None


def test_the_page_holds_the_numbers_and_four_pictures():
    values = foreseeing(0.05)
    episodes = [judged(values, 1, Outcome.SUCCESS, 6), judged(values, 2, Outcome.FAILURE, 10)]
    tasks = calibrate(episodes, values)
    page = render("Calibration", tasks, episodes, {"restock_shelf": 0.4}, "made for a test")
    assert page.count("<svg") == 4
    assert "8 frames of 2 held-out episodes, 1 of them successes" in page
    assert "+0.4000" in page
    assert page == render("Calibration", tasks, episodes, {"restock_shelf": 0.4}, "made for a test")
    assert 'src="http' not in page
    assert 'href="http' not in page
