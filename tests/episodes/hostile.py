"""Attacks on whoever reads an episode's object: name -> bytes that must be refused. Made from one small valid episode."""

import io
import struct
import zipfile
from collections.abc import Callable, Mapping

import numpy as np
from episode_strategies import rewrite

from sop_jax.episodes.array_codec import npy_header
from sop_jax.episodes.zip_layout import FOOTER_BYTES, read_footer

GIANT = 2**32 - 1


def as_zip(data: bytes, method: int, extra: Mapping[str, bytes] | None = None) -> bytes:
    """The same members as any zip tool would write them."""
    source = zipfile.ZipFile(io.BytesIO(data))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
        for name, content in (extra or {}).items():
            archive.writestr(name, content)
    return target.getvalue()


def with_member(data: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    return rewrite(data, edit_member=lambda old, content: (old, change(content) if old == name else content))


def with_directory_offset(data: bytes, entry: int, offset: int) -> bytes:
    """The central directory's nth entry points at another entry's bytes."""
    at = read_footer(data[-FOOTER_BYTES:], "").directory_offset
    for _ in range(entry):
        at += 46 + struct.unpack_from("<H", data, at + 28)[0]
    return data[: at + 42] + struct.pack("<L", offset) + data[at + 46 :]


def frame_header(jpeg: bytes) -> int:
    return jpeg.index(b"\xff\xc0")


def giant_jpeg(jpeg: bytes) -> bytes:
    """Claims 65,500 pixels a side: 12.9 GB decoded."""
    at = frame_header(jpeg)
    return jpeg[: at + 5] + struct.pack(">HH", 65_500, 65_500) + jpeg[at + 9 :]


def progressive_jpeg(jpeg: bytes) -> bytes:
    at = frame_header(jpeg)
    return jpeg[:at] + b"\xff\xc2" + jpeg[at + 2 :]


def many_scans(jpeg: bytes, num: int = 5000) -> bytes:
    at = jpeg.index(b"\xff\xda")
    return jpeg[:at] + jpeg[at:-2] * num + jpeg[-2:]


def attacks(data: bytes) -> dict[str, bytes]:
    """Each would hurt a trusting reader: unpack too much, write elsewhere, learn from garbage, or never come back."""
    image, state = "frames/000000/head.jpg", "arrays/state.npy"
    footer = read_footer(data[-FOOTER_BYTES:], "")

    def manifest(**fields: object) -> bytes:
        return rewrite(data, lambda held: held.update(fields))

    def values(value: float) -> bytes:
        return with_member(data, state, lambda old: old[:128] + struct.pack("<f", value) + old[132:])

    return {
        "empty": b"",
        "torn": data[:-40],
        "not a zip": b"\x00" * 4096,
        "zip bomb": as_zip(data, zipfile.ZIP_DEFLATED, {"bomb": b"\0" * 5_000_000}),
        "path traversal": as_zip(data, zipfile.ZIP_STORED, {"../../../../etc/cron.d/x": b"* * * * * root true"}),
        "overlapping entries": with_directory_offset(data, 1, 0),
        "a size of 4 GiB": data[:18] + struct.pack("<LL", GIANT, GIANT) + data[26:],
        "a directory far away": data[:-FOOTER_BYTES] + struct.pack(
            "<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, GIANT, GIANT, FOOTER_BYTES - 22
        ) + b"sop-episode arrays=%010d manifest=%010d" % (footer.arrays_offset, footer.manifest_offset),
        "trailing bytes": data + b"payload",
        "wrong dtype": with_member(data, state, lambda old: old.replace(b"'<f4'", b"'<f8'")),
        "pickled array": with_member(data, state, lambda old: old.replace(b"'<f4'", b"'|O' ")),
        "array of 4 TB": with_member(data, state, lambda old: npy_header("<f4", (10**6, 10**6)) + old[128:]),
        "NaN": values(np.nan),
        "infinity": values(np.inf),
        "a joint at 1000 rad": values(1000.0),
        "a million frames": manifest(num_frames=10**6),
        "a trillion frames": manifest(num_frames=10**12),
        "twelve thousand takeovers": manifest(
            takeovers=[{"asked_frame": 0, "takeover_frame": 0, "handback_frame": 1, "reason": ""}] * 12_000
        ),
        "future version": manifest(schema_version=99),
        "forged robot": manifest(robot_id="robot-9"),
        "forged episode": manifest(episode_id="robot-9.00000000001000000000.000001", robot_id="robot-9"),
        "task that climbs": manifest(task="../../etc"),
        "terminal escapes": manifest(instruction="\x1b]0;owned\x07"),
        "deep JSON": with_member(data, "manifest.json", lambda old: b"[" * 500_000),
        "number of a million digits": with_member(data, "manifest.json", lambda old: b"1" * 1_000_000),
        "JPEG of 12.9 GB": with_member(data, image, giant_jpeg),
        "progressive JPEG": with_member(data, image, progressive_jpeg),
        "JPEG of 5000 scans": with_member(data, image, many_scans),
        "JPEG that is none": with_member(data, image, lambda old: b"GIF89a" + old[6:]),
        "JPEG cut off": with_member(data, image, lambda old: old[:-30]),
    }  # fmt: skip
