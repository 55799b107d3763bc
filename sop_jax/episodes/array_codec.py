"""The numeric members: fixed names, types and shapes, as .npy files with a fixed header.

The header is compared with the one expected byte for byte instead of being parsed, so a hostile file can neither reach
numpy's header parser nor ask for a huge or pickled array.
"""

import dataclasses
import math

import numpy as np

from sop_jax.episodes.rejection import reject
from sop_jax.specs.records import EpisodeArrays

HEADER_BYTES = 128
_MAGIC = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
DTYPES = {
    "state": "<f4",
    "action": "<f4",
    "intervention": "|b1",
    "policy_version": "<i4",
    "time_ns": "<i8",
    "image_frames": "<i4",
}
"""Array name -> dtype, in the order in which they are stored."""


def member_name(array: str) -> str:
    return f"arrays/{array}.npy"


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    return _MAGIC + text.ljust(HEADER_BYTES - len(_MAGIC) - 1).encode() + b"\n"


def expected_shapes(num_frames: int, action_dim: int, num_image_frames: int) -> dict[str, tuple[int, ...]]:
    return {
        "state": (num_frames, action_dim),
        "action": (num_frames, action_dim),
        "intervention": (num_frames,),
        "policy_version": (num_frames,),
        "time_ns": (num_frames,),
        "image_frames": (num_image_frames,),
    }


def encode_arrays(arrays: EpisodeArrays, num_frames: int, action_dim: int, where: str) -> dict[str, bytes]:
    """Array name -> .npy file. Raises InvalidEpisodeError for a wrong type or shape."""
    encoded = {}
    shapes = expected_shapes(num_frames, action_dim, len(arrays.image_frames))
    for field in dataclasses.fields(arrays):
        array, dtype, shape = np.asarray(getattr(arrays, field.name)), DTYPES[field.name], shapes[field.name]
        if array.dtype != np.dtype(dtype) or array.shape != shape:
            raise reject(
                where,
                f"array {field.name}",
                expected=f"{np.dtype(dtype)}{list(shape)}",
                got=f"{array.dtype}{list(array.shape)}",
                fix="Build episodes with EpisodeRecorder, or cast before packing.",
            )
        encoded[field.name] = npy_header(dtype, shape) + array.astype(dtype).tobytes()
    return encoded


def decode_arrays(files: dict[str, memoryview], num_frames: int, action_dim: int, where: str) -> EpisodeArrays:
    """The arrays, read-only copies that keep nothing else alive. Raises InvalidEpisodeError."""
    num_image_frames = max(0, len(files["image_frames"]) - HEADER_BYTES) // 4
    arrays = {}
    for name, shape in expected_shapes(num_frames, action_dim, num_image_frames).items():
        dtype, file = DTYPES[name], files[name]
        num_bytes = HEADER_BYTES + math.prod(shape) * np.dtype(dtype).itemsize
        header = npy_header(dtype, shape)
        if bytes(file[:HEADER_BYTES]) != header or len(file) != num_bytes:
            raise reject(
                where,
                f"array {name}",
                expected=f"{np.dtype(dtype)}{list(shape)} in {num_bytes} bytes, as the manifest says",
                got=bytes(file[10:HEADER_BYTES]).rstrip() + b" in %d bytes" % len(file),
                fix="The robot's software disagrees with its own manifest; update it.",
            )
        if dtype == "|b1" and np.any(np.frombuffer(file, np.uint8, offset=HEADER_BYTES) > 1):
            raise reject(where, f"array {name}", expected="bytes 0 or 1", got="other bytes", fix="Update the robot.")
        array = np.frombuffer(file, dtype, offset=HEADER_BYTES).reshape(shape).astype(np.dtype(dtype).newbyteorder("="))
        array.flags.writeable = False
        arrays[name] = array
    return EpisodeArrays(**arrays)
