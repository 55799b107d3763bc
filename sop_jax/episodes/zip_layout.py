"""The zip container, written and read by hand so that each content has exactly one encoding.

Any zip tool can open what `ZipWriter` writes. `read_member` and `read_footer` accept only what it writes: stored members in
the expected order with fixed times and no extra fields, one after another without gaps, then the central directory, then
an end record whose comment says where the numeric tail begins. So there is nothing a hostile file could hide in:
no second name for the same bytes, no traversal, no compression, no overlap, no trailing data.

Layout::

    image members | array members | manifest.json | central directory | end record + comment
    0             arrays_offset                   directory_offset                           size
"""

import dataclasses
import hashlib
import re
import struct
import zlib
from collections.abc import Iterable, Sequence

from sop_jax.episodes.rejection import reject

MAX_EPISODE_BYTES = 2**30
"""Largest episode object; 30 minutes at 10 Hz with three 224-pixel cameras fit several times over."""
MAX_MEMBERS = 65_534

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_COMMENT_TEXT = "sop-episode arrays=%010d manifest=%010d"
_COMMENT = re.compile(rb"sop-episode arrays=([0-9]{10}) manifest=([0-9]{10})")
_VERSION = 20
_MADE_BY_UNIX = (3 << 8) | _VERSION
_MIDNIGHT, _YEAR_1980 = 0, (1 << 5) | 1
_MODE_644 = 0o100644 << 16
FOOTER_BYTES = _END.size + len(_COMMENT_TEXT % (0, 0))
_TORN = "The object was cut off, altered, or not written by EpisodeStore; upload it again from the robot's spool."


@dataclasses.dataclass(frozen=True)
class Member:
    """One file in the container; offsets count from the start of the object."""

    name: str
    offset: int
    data_offset: int
    size: int
    crc: int

    @property
    def end(self) -> int:
        return self.data_offset + self.size


@dataclasses.dataclass(frozen=True)
class Footer:
    """What the object's last bytes say: [arrays_offset, directory_offset) is the numeric tail, and from manifest_offset on
    that is the manifest's member."""

    arrays_offset: int
    manifest_offset: int
    directory_offset: int
    size: int


def _local_header(name: bytes, crc: int, size: int) -> bytes:
    return _LOCAL.pack(b"PK\3\4", _VERSION, 0, 0, _MIDNIGHT, _YEAR_1980, crc, size, size, len(name), 0) + name


def directory(members: Sequence[Member], arrays_offset: int) -> bytes:
    """The central directory and end record for these members, the manifest last: the only ones that a reader accepts."""
    records = []
    for member in members:
        name = member.name.encode()
        fields = (_MADE_BY_UNIX, _VERSION, 0, 0, _MIDNIGHT, _YEAR_1980, member.crc, member.size, member.size)
        records.append(_CENTRAL.pack(b"PK\1\2", *fields, len(name), 0, 0, 0, 0, _MODE_644, member.offset) + name)
    body = b"".join(records)
    comment = (_COMMENT_TEXT % (arrays_offset, members[-1].offset)).encode()
    start = members[-1].end
    return body + _END.pack(b"PK\5\6", 0, 0, len(members), len(members), len(body), start, len(comment)) + comment


class ZipWriter:
    """Collects members in order; `finish` returns the object's bytes. `where` names the episode in errors."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._parts: list[bytes] = []
        self._members: list[Member] = []
        self._sha256 = hashlib.sha256()
        self.offset = 0

    def add(self, name: str, data: bytes) -> Member:
        self._check_size(self.offset + len(data), len(self._members) + 1)
        crc = zlib.crc32(data)
        header = _local_header(name.encode(), crc, len(data))
        member = Member(name, self.offset, self.offset + len(header), len(data), crc)
        for part in (header, data):
            self._parts.append(part)
            self._sha256.update(part)
        self._members.append(member)
        self.offset = member.end
        return member

    def sha256(self) -> str:
        """Checksum of everything added so far, headers included."""
        return self._sha256.hexdigest()

    def finish(self, arrays_offset: int) -> bytes:
        end = directory(self._members, arrays_offset)
        self._check_size(self.offset + len(end), len(self._members))
        return b"".join((*self._parts, end))

    def _check_size(self, num_bytes: int, num_members: int) -> None:
        if num_bytes > MAX_EPISODE_BYTES or num_members > MAX_MEMBERS:
            raise reject(
                self._where,
                "it is too large for one object",
                expected=f"at most {MAX_EPISODE_BYTES} bytes and {MAX_MEMBERS} members",
                got=(num_bytes, num_members),
                fix="Raise image_stride, lower the JPEG quality, or end episodes sooner.",
            )


def read_member(data: bytes | memoryview, offset: int, limit: int, name: str, where: str, base: int = 0) -> Member:
    """The member that starts at `offset`, checked against its expected `name` and its CRC.

    `data` holds the object's bytes from `base` on; `offset` and `limit` (which it must not cross) count from the object's
    start. Raises InvalidEpisodeError.
    """
    view = memoryview(data)
    encoded = name.encode()
    start = offset - base
    data_start = start + _LOCAL.size + len(encoded)
    if start < 0 or data_start > limit - base or limit - base > len(view):
        raise reject(where, f"no room for member {name}", expected=f"{name} at byte {offset}", got=limit, fix=_TORN)
    fields = _LOCAL.unpack_from(view, start)
    crc, size, method, got_name = fields[6], fields[8], fields[3], bytes(view[start + _LOCAL.size : data_start])
    if method != 0:
        raise reject(where, f"compression of {name}", expected="method 0 (stored)", got=method, fix=_TORN)
    if got_name != encoded or fields[9] != len(encoded):
        raise reject(where, f"member at byte {offset}", expected=name, got=got_name, fix=_TORN)
    if bytes(view[start:data_start]) != _local_header(encoded, crc, size):
        raise reject(where, f"zip header of {name}", expected="the canonical one", got=fields, fix=_TORN)
    if data_start + size > limit - base:
        raise reject(
            where, f"size of {name}", expected=f"at most {limit - base - data_start} bytes", got=size, fix=_TORN
        )
    found = zlib.crc32(view[data_start : data_start + size])
    if found != crc:
        raise reject(where, f"CRC-32 of {name}", expected=f"{crc:#010x}", got=hex(found), fix=_TORN)
    return Member(name, offset, base + data_start, size, crc)


def read_footer(last_bytes: bytes | memoryview, where: str) -> Footer:
    """Reads the object's last FOOTER_BYTES bytes. Raises InvalidEpisodeError."""
    if len(last_bytes) != FOOTER_BYTES:
        raise reject(where, "size", expected=f"at least {FOOTER_BYTES} bytes", got=len(last_bytes), fix=_TORN)
    fields = _END.unpack_from(last_bytes)
    match = _COMMENT.fullmatch(bytes(last_bytes[_END.size :]))
    if fields[0] != b"PK\5\6" or match is None:
        raise reject(
            where,
            "end record",
            expected="a zip end record with the comment 'sop-episode arrays=<offset> manifest=<offset>'",
            got=bytes(last_bytes),
            fix=_TORN,
        )
    start = fields[6]
    footer = Footer(int(match[1]), int(match[2]), start, start + fields[5] + FOOTER_BYTES)
    if not footer.arrays_offset < footer.manifest_offset < start < footer.size <= MAX_EPISODE_BYTES:
        raise reject(
            where,
            "end record",
            expected=f"arrays < manifest < directory < size <= {MAX_EPISODE_BYTES}",
            got=(footer.arrays_offset, footer.manifest_offset, start, footer.size),
            fix=_TORN,
        )
    return footer


def read_directory(view: memoryview, names: Iterable[str], where: str) -> list[Member]:
    """The directory's first members, which must have these `names` and follow one another from byte 0 of the object.

    Sizes and checksums are taken from the directory. Raises InvalidEpisodeError; the caller compares the whole directory.
    """
    members, offset, at = [], 0, 0
    for name in names:
        if at + _CENTRAL.size > len(view):
            raise reject(where, "zip directory", expected=f"an entry for {name}", got="its end", fix=_TORN)
        fields = _CENTRAL.unpack_from(view, at)
        crc, size, length = fields[7], fields[9], len(name.encode())
        members.append(Member(name, offset, offset + _LOCAL.size + length, size, crc))
        offset = members[-1].end
        at += _CENTRAL.size + length
    return members
