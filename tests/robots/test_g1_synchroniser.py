"""What belongs together, and what is refused, on a link whose stamps the tests choose."""

import numpy as np
import pytest

from sop_jax.robots.g1.config import CameraConfig, TimingConfig
from sop_jax.robots.g1.faults import CameraLateError, ClockSkewError, StateLateError
from sop_jax.robots.g1.images import fit_image
from sop_jax.robots.g1.link import BodyState, Frame
from sop_jax.robots.g1.synchroniser import Synchroniser

MS = 1_000_000
NOW = 10_000 * MS
CAMERAS = (CameraConfig("head", "a", 8, 8, 4, 4), CameraConfig("hand_left", "b", 8, 8, 4, 4))


class StampedLink:
    """Joint 1 of a state and all pixels of a frame say when they were taken, in ms before NOW."""

    def __init__(self, states, **frames):
        self.states, self.frames = states, frames

    def read_state(self, at_ns=None):
        age = min(self.states) if at_ns is None else min(self.states, key=lambda age: abs(NOW - age * MS - at_ns))
        stamp = NOW - age * MS
        return BodyState(np.full(14, float(age)), np.zeros(2), np.zeros(2), np.zeros(2), stamp, stamp)

    def read_frame(self, camera, at_ns=None):
        ages = self.frames[camera]
        if not ages:
            return None
        age = min(ages) if at_ns is None else min(ages, key=lambda age: abs(NOW - age * MS - at_ns))
        return Frame(np.full((8, 8, 3), age % 256, np.uint8), NOW - age * MS)


def read(link, now=NOW, **timing):
    return Synchroniser(link, CAMERAS, TimingConfig(**timing)).read_sample(now)


def test_pictures_and_states_are_those_of_the_slowest_camera():
    sample = read(StampedLink([5, 38, 71, 104], head=[67, 100, 133], hand_left=[20, 53, 86]))
    assert NOW - sample.time_ns == 67 * MS
    assert sample.images["head"][0, 0, 0] == 67
    assert sample.images["hand_left"][0, 0, 0] == 53
    assert sample.state.arms[0] == 71
    assert sample.images["head"].shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("link", "error", "message"),
    [
        (StampedLink([5], head=[], hand_left=[20]), CameraLateError, "camera head: no frame yet"),
        (
            StampedLink([5], head=[260], hand_left=[20]),
            CameraLateError,
            "camera head: the newest sample is 0.260 s old",
        ),
        (
            StampedLink([110], head=[20], hand_left=[20]),
            StateLateError,
            "joint states: the newest sample is 0.110 s old",
        ),
        (StampedLink([5], head=[-30], hand_left=[20]), ClockSkewError, "camera head.*0.030 s ahead"),
        (StampedLink([-30], head=[20], hand_left=[20]), ClockSkewError, "joint states.*0.030 s ahead"),
        (StampedLink([5], head=[90], hand_left=[90]), StateLateError, "nearest to the picture's time is 0.085 s away"),
        (StampedLink([5, 90], head=[90], hand_left=[20]), CameraLateError, "camera hand_left.*0.070 s away"),
    ],
)
def test_what_is_old_ahead_or_apart_is_refused(link, error, message):
    with pytest.raises(error, match=message):
        read(link)


def test_the_deadlines_are_the_configured_ones():
    link = StampedLink([110], head=[120], hand_left=[120])
    assert read(link, max_state_age_s=0.12).state.arms[0] == 110


def test_a_picture_that_never_changes_is_frozen():
    class Frozen(StampedLink):
        def __init__(self):
            super().__init__([0], head=[0], hand_left=[0])
            self.now, self.noise = NOW, 0

        def read_state(self, at_ns=None):
            return BodyState(np.zeros(14), np.zeros(2), np.zeros(2), np.zeros(2), self.now, self.now)

        def read_frame(self, camera, at_ns=None):
            return Frame(
                np.full((8, 8, 3), self.noise if camera == "hand_left" else self.now // MS % 256, np.uint8), self.now
            )

    link = Frozen()
    synchroniser = Synchroniser(link, CAMERAS, TimingConfig(max_frozen_s=1.0))
    for tick in range(11):
        link.now = NOW + tick * 100 * MS
        synchroniser.read_sample(link.now)
    link.now += 100 * MS
    with pytest.raises(CameraLateError, match=r"camera hand_left: the same picture for 1\.10 s"):
        synchroniser.read_sample(link.now)
    link.noise = 1
    synchroniser.read_sample(link.now)
    still = Synchroniser(link, CAMERAS, TimingConfig(max_frozen_s=None))
    for tick in range(30):
        link.now += tick
        still.read_sample(link.now)


def test_frames_are_cropped_around_the_centre_and_averaged():
    frame = np.zeros((4, 8, 3), np.uint8)
    frame[:, 2:4], frame[:, 4:6] = 100, 200
    frame[0, 2] = 60
    image = fit_image(frame, 2, 2)
    assert image[..., 0].tolist() == [[90, 200], [100, 200]]
    np.testing.assert_array_equal(fit_image(frame, 4, 8), frame)
    assert fit_image(np.zeros((720, 1280, 3), np.uint8), 224, 224).shape == (224, 224, 3)
    assert fit_image(np.zeros((480, 848, 3), np.uint8), 100, 224).shape == (100, 224, 3)
