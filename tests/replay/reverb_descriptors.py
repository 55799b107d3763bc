"""Reads the message definitions that dm-reverb's own shared libraries carry."""

import pathlib

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

_FILES = {
    "libreverb_service_cc_proto.so": "reverb/cc/reverb_service.proto",
    "libschema_cc_proto.so": "reverb/cc/schema.proto",
}


def read_messages(package: pathlib.Path) -> dict[str, dict[int, tuple[str, int, bool, str]]]:
    """Message name -> field number -> (name, type, repeated, message type) of the dm-reverb package at that folder."""
    found: dict[str, dict[int, tuple[str, int, bool, str]]] = {}
    for library, proto in _FILES.items():
        for message in _file_descriptor((package / library).read_bytes(), proto).message_type:
            _collect(message, "", found)
    return found


def _collect(message: descriptor_pb2.DescriptorProto, prefix: str, found: dict) -> None:
    name = prefix + message.name
    found[name] = {
        field.number: (field.name, field.type, field.label == field.LABEL_REPEATED, field.type_name.rpartition(".")[2])
        for field in message.field
    }
    for nested in message.nested_type:
        _collect(nested, f"{name}.", found)


def _file_descriptor(library: bytes, proto: str) -> descriptor_pb2.FileDescriptorProto:
    """Finds the serialised FileDescriptorProto: it starts with field 1, the file's name."""
    start = library.index(b"\n" + bytes([len(proto)]) + proto.encode())
    best = descriptor_pb2.FileDescriptorProto()
    end = start
    while True:  # walk over its fields to find where it ends
        tag, at = _varint(library, end)
        if tag & 7 != 2 or tag >> 3 not in range(1, 13):
            break
        length, at = _varint(library, at)
        end = at + length
    try:
        best.ParseFromString(library[start:end])
    except DecodeError as error:
        raise ValueError(f"no descriptor of {proto} in this dm-reverb") from error
    return best


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
