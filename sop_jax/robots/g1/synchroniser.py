"""Pictures and states of one instant: matched by nearest stamp, refused when they are old, ahead of time, or frozen.

A clock that is behind can't be told from samples that were delayed: both look old, and both are refused as late. A clock
that is ahead shows at once, as a sample from the future.
"""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from sop_jax.robots.g1.config import CameraConfig, TimingConfig
from sop_jax.robots.g1.faults import CameraLateError, ClockSkewError, G1Fault, StateLateError
from sop_jax.robots.g1.images import fit_image
from sop_jax.robots.g1.link import BodyState, Frame, G1Link

_ROWS_LOOKED_AT = 8  # every so many rows of a frame tell whether it changed


@dataclasses.dataclass(frozen=True)
class Sample:
    """What was seen and measured at `time_ns`: images by our camera names, uint8 [h, w, 3]."""

    images: Mapping[str, np.ndarray]
    state: BodyState
    time_ns: int


@dataclasses.dataclass
class _Seen:
    """The last picture of a camera that differed from the one before, and when it was taken."""

    checksum: int
    time_ns: int


class Synchroniser:
    """Reads a link so that what comes out belongs together. Not thread-safe.

    state = synchroniser.read_state(now_ns)        # the newest, if it is fresh
    sample = synchroniser.read_sample(now_ns)      # pictures of all cameras and the states of the same instant

    The instant is the newest one of which every camera has a picture: that of the slowest camera.
    """

    def __init__(self, link: G1Link, cameras: Sequence[CameraConfig], timing: TimingConfig):
        self._link = link
        self._cameras = tuple(cameras)
        self._timing = timing
        self._seen: dict[str, _Seen] = {}

    def reset(self) -> None:
        """Forgets which pictures were seen."""
        self._seen.clear()

    def read_state(self, now_ns: int) -> BodyState:
        """Raises StateLateError, ClockSkewError, or what the link raises."""
        state = self._link.read_state()
        self._check_age("joint states", state.time_ns, now_ns, self._timing.max_state_age_s, StateLateError)
        self._check_age("joint states", state.newest_ns, now_ns, self._timing.max_state_age_s, StateLateError)
        return state

    def read_sample(self, now_ns: int) -> Sample:
        """Raises CameraLateError, StateLateError, ClockSkewError, or what the link raises."""
        self.read_state(now_ns)
        newest = {camera.name: self._read_newest(camera.name, now_ns) for camera in self._cameras}
        time_ns = min(frame.time_ns for frame in newest.values())
        images = {}
        for camera in self._cameras:
            frame = self._read_near(camera.name, newest[camera.name], time_ns)
            images[camera.name] = fit_image(frame.image, camera.height, camera.width)
        state = self._link.read_state(time_ns)
        for stamp_ns in (state.time_ns, state.newest_ns):
            self._check_spread("joint states", stamp_ns, time_ns, StateLateError)
        return Sample(images, state, time_ns)

    def _read_newest(self, name: str, now_ns: int) -> Frame:
        frame = self._link.read_frame(name)
        if frame is None:
            raise CameraLateError(f"camera {name}: no frame yet; is it plugged in, and named as in its CameraConfig?")
        self._check_age(f"camera {name}", frame.time_ns, now_ns, self._timing.max_frame_age_s, CameraLateError)
        self._check_moving(name, frame)
        return frame

    def _read_near(self, name: str, newest: Frame, time_ns: int) -> Frame:
        if newest.time_ns == time_ns:
            return newest
        frame = self._link.read_frame(name, time_ns)
        if frame is None:
            raise CameraLateError(f"camera {name}: no frame near {time_ns} ns")
        self._check_spread(f"camera {name}", frame.time_ns, time_ns, CameraLateError)
        return frame

    def _check_moving(self, name: str, frame: Frame) -> None:
        """A real picture has noise: one that stays the same to the last bit under new stamps is an old one, sent again."""
        if self._timing.max_frozen_s is None:
            return
        checksum = zlib.crc32(frame.image[::_ROWS_LOOKED_AT].tobytes())
        seen = self._seen.get(name)
        if seen is None or seen.checksum != checksum:
            self._seen[name] = _Seen(checksum, frame.time_ns)
        elif frame.time_ns - seen.time_ns > self._timing.max_frozen_s * 1e9:
            raise CameraLateError(
                f"camera {name}: the same picture for {(frame.time_ns - seen.time_ns) / 1e9:.2f} s, under new stamps; it is "
                "frozen (a source without noise needs TimingConfig.max_frozen_s=None)"
            )

    def _check_age(self, what: str, time_ns: int, now_ns: int, max_age_s: float, late: type[G1Fault]) -> None:
        age_s = (now_ns - time_ns) / 1e9
        if age_s < -self._timing.max_ahead_s:
            raise ClockSkewError(
                f"{what}: the newest sample is {-age_s:.3f} s ahead of this computer's clock, at most "
                f"{self._timing.max_ahead_s} s is allowed; set both clocks by one time server"
            )
        if age_s > max_age_s:
            raise late(
                f"{what}: the newest sample is {age_s:.3f} s old, at most {max_age_s} s is allowed; the source has stopped, "
                "it is delayed, or its clock is behind"
            )

    def _check_spread(self, what: str, time_ns: int, wanted_ns: int, late: type[G1Fault]) -> None:
        apart_s = abs(time_ns - wanted_ns) / 1e9
        if apart_s > self._timing.max_spread_s:
            raise late(
                f"{what}: the sample nearest to the picture's time is {apart_s:.3f} s away from it, at most "
                f"{self._timing.max_spread_s} s is allowed"
            )
