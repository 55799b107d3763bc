"""TFRecord files: length, checksum of the length, data, checksum of the data; again and again.

Checksums are CRC-32C, masked: rotated right by 15 bits, plus a constant.
"""

import dataclasses
import pathlib
import struct
from typing import BinaryIO

import google_crc32c

from sop_jax.interchange.errors import refuse

MAX_RECORD_BYTES = 2**31 - 1
"""No protocol buffer is longer."""
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8
_FIX = "The file is damaged or cut off; fetch it again."


@dataclasses.dataclass(frozen=True)
class Record:
    """Where one record's data lies."""

    path: pathlib.Path
    offset: int
    length: int


def masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def index_records(path: pathlib.Path) -> list[Record]:
    """Every record of a file, without reading their data; lengths are checked. Raises InvalidDatasetError."""
    records, size = [], path.stat().st_size
    with path.open("rb") as file:
        offset = 0
        while offset < size:
            length = _read_length(file, offset, path)
            end = offset + _HEADER.size + length + _FOOTER.size
            if end > size:
                what, got = f"record at byte {offset}", f"a file of {size} bytes"
                raise refuse(str(path), what, expected=f"data up to byte {end}", got=got, fix=_FIX)
            records.append(Record(path, offset + _HEADER.size, length))
            offset = end
    return records


def read_record(record: Record) -> bytes:
    """The data, its checksum checked. Raises InvalidDatasetError."""
    with record.path.open("rb") as file:
        file.seek(record.offset)
        data = file.read(record.length)
        footer = file.read(_FOOTER.size)
    if len(data) != record.length or footer != _FOOTER.pack(masked_crc(data)):
        what = f"record at byte {record.offset}"
        raise refuse(str(record.path), what, expected="data of its checksum", got="other data", fix=_FIX)
    return data


def frame_record(data: bytes) -> bytes:
    """A record as it stands in a file."""
    length = struct.pack("<Q", len(data))
    return length + _FOOTER.pack(masked_crc(length)) + data + _FOOTER.pack(masked_crc(data))


def _read_length(file: BinaryIO, offset: int, path: pathlib.Path) -> int:
    file.seek(offset)
    header = file.read(_HEADER.size)
    if len(header) == _HEADER.size:
        length, crc = _HEADER.unpack(header)
        if crc == masked_crc(header[:8]) and length <= MAX_RECORD_BYTES:
            return length
    raise refuse(str(path), f"header at byte {offset}", expected="a length and its checksum", got=header, fix=_FIX)
