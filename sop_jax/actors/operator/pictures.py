"""Pictures on the wire: one line of JSON that says whose they are, then the JPEG.

{"robot": "g1-1", "camera": "head", "number": 17}\n<JPEG>
"""

import dataclasses
import json

from sop_jax.actors.operator.commands import BadMessageError

_MAX_HEAD_BYTES = 400


@dataclasses.dataclass(frozen=True)
class PictureHead:
    """Whose picture it is, of which camera, and its number in that robot's row of pictures."""

    robot: str
    camera: str
    number: int


def join_picture(head: PictureHead, jpeg: bytes) -> bytes:
    return json.dumps(dataclasses.asdict(head)).encode() + b"\n" + jpeg


def read_head(message: bytes) -> PictureHead:
    """Raises BadMessageError."""
    line, separator, _ = message[:_MAX_HEAD_BYTES].partition(b"\n")
    try:
        raw = json.loads(line)
        head = PictureHead(raw["robot"], raw["camera"], raw["number"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadMessageError(f"a picture must begin with a line of JSON, got {line[:80]!r}: {error}") from error
    is_whole = isinstance(head.robot, str) and isinstance(head.camera, str) and isinstance(head.number, int)
    if not separator or not is_whole:
        raise BadMessageError(f"a picture must begin with robot, camera and number, got {line[:80]!r}")
    return head
