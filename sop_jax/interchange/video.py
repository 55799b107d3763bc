"""Cameras as video files: one after another episode's frames into an mp4, and single frames out of one.

Legend: `h w` pixels.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from av.error import FFmpegError

from sop_jax.interchange.errors import refuse
from sop_jax.specs.errors import ConfigError

_ENCODER = "libx264"
CODEC = "h264"
PIXELS = "yuv420p"


@dataclasses.dataclass(frozen=True)
class VideoConfig:
    """How cameras are encoded: H.264, 4:2:0.

    crf: constant quality, 0 (lossless but for the colours' halved resolution) to 51 (worst).
    keyframe_every: frames from one that stands alone to the next; small makes single frames quick to read.
    """

    crf: int = 15
    keyframe_every: int = 6

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51 or self.keyframe_every < 1:
            raise ConfigError(f"VideoConfig needs crf in 0..51 and keyframe_every >= 1, got {self}")


class VideoWriter:
    """Writes frame n at n / fps seconds; nothing is reordered, so that every reader finds it there.

    writer = VideoWriter(path, fps=30, size=(480, 640))
    writer.add(image)                                    # uint8 [h, w, 3]
    writer.close()
    """

    def __init__(self, path: pathlib.Path, fps: int, size: tuple[int, int], config: VideoConfig | None = None):
        config = config or VideoConfig()
        height, width = size
        self.num_frames = 0
        self.num_bytes = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w")
        options = {"crf": str(config.crf), "g": str(config.keyframe_every), "bf": "0", "preset": "medium"}
        self._stream = self._container.add_stream(_ENCODER, rate=fps, options=options)
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, PIXELS
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.time_base = Fraction(1, fps)

    def add(self, image: np.ndarray) -> None:
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = self.num_frames, self._stream.codec_context.time_base
        packets = self._stream.encode(frame)
        self.num_bytes += sum(packet.size for packet in packets)
        self._container.mux(packets)
        self.num_frames += 1

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()


def read_frames(path: pathlib.Path, times_s: Sequence[float], tolerance_s: float, where: str) -> Iterator[np.ndarray]:
    """uint8 [h, w, 3] of the frames at these times (increasing), each within the tolerance.

    Raises InvalidDatasetError if the file can't be read or has no frame at one of the times.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if times_s and stream.time_base is not None:
                container.seek(max(0, int((times_s[0] - tolerance_s) / stream.time_base)), stream=stream)
            frames = container.decode(stream)
            frame = next(frames, None)
            for time_s in times_s:
                while frame is not None and (frame.time is None or frame.time < time_s - tolerance_s):
                    frame = next(frames, None)
                if frame is None or frame.time is None or frame.time > time_s + tolerance_s:
                    got = "the end of the file" if frame is None else f"the next one at {frame.time} s"
                    expected = f"a frame at {time_s:.3f} s"
                    raise refuse(where, f"video {path.name}", expected=expected, got=got, fix=_FIX)
                yield frame.to_ndarray(format="rgb24")
    except (FFmpegError, OSError, IndexError) as error:
        raise refuse(where, f"video {path}", expected="a readable video", got=str(error), fix=_FIX) from error


_FIX = "The file is missing, damaged or cut off; fetch the dataset again."
