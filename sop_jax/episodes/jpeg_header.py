"""What a JPEG says about itself, read before anything is decoded: decoding cost must be bounded by the bytes and the size.

A progressive JPEG may ask for thousands of passes over a large image from a few bytes each, so only sequential ones pass, and
those with a few scans only. Cameras and `encode_image` make nothing else.
"""

from collections.abc import Iterator

from sop_jax.specs.records import CameraSpec

MAX_SCANS = 8
"""A sequential JPEG has one scan, or one per colour."""
_SEQUENTIAL = (0xC0, 0xC1)
_OTHER_FRAMES = frozenset({*range(0xC2, 0xD0)} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
_START_OF_SCAN = 0xDA
_MAX_KNOWN_BYTES = 4096
_MAX_KNOWN = 4
"""Headers of one size: several encoders."""


def find_fault(jpeg: bytes | memoryview) -> str:
    """Why this JPEG must not be decoded, "" if nothing speaks against it. Takes time in proportion to the bytes."""
    data = bytes(jpeg)
    for at, marker in _markers(data):
        if marker in _SEQUENTIAL:
            # Within entropy-coded data these two bytes can't stand together, so every scan is counted.
            num_scans = data.count(b"\xff\xda", at)
            return "" if num_scans <= MAX_SCANS else f"{num_scans} scans"
        if marker in _OTHER_FRAMES:
            return f"frame type {marker:#x} (progressive, lossless or arithmetic)"
        if marker == _START_OF_SCAN:
            break
    return "no frame header"


def sound_header(jpeg: bytes) -> bytes:
    """All up to the first scan's data, of a JPEG without fault; b"" if that scan doesn't hold all of the colours.

    What begins with the same bytes can be decoded as safely: the header alone says how much there is to do, and of a JPEG
    whose first scan is whole, the decoder refuses any further one.
    """
    num_colours = 0
    for at, marker in _markers(jpeg):
        if marker in _SEQUENTIAL:
            num_colours = jpeg[at + 9]
        elif marker == _START_OF_SCAN and jpeg[at + 4] == num_colours:
            return jpeg[: at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")]
    return b""


class KnownHeaders:
    """The headers of JPEGs without fault: a camera's have the same one over and over, and comparing it takes a tenth of the
    time of reading it. Threads may share it."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[bytes, ...]] = {}

    def begin(self, jpeg: bytes, camera: CameraSpec) -> bool:
        """Whether this JPEG of the camera's size begins with a header that was added."""
        return jpeg.startswith(self._known.get((camera.height, camera.width), ()))

    def add(self, jpeg: bytes, camera: CameraSpec) -> None:
        """Adds the header of a JPEG that passed every check; the last few of each size are kept."""
        header, size = sound_header(jpeg), (camera.height, camera.width)
        if 0 < len(header) <= _MAX_KNOWN_BYTES:
            self._known[size] = (header, *self._known.get(size, ())[: _MAX_KNOWN - 1])


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    """(place, marker), one after the other, up to the first scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            yield at, marker
            if marker == _START_OF_SCAN:
                return
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
