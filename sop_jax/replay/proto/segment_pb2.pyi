# ruff: noqa
# fmt: off
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Segment(_message.Message):
    __slots__ = ("episode_id", "path", "task", "source", "policy_version", "ended_ns", "frames", "image_ranges", "arrays_offset", "arrays_length", "intervention", "label")
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENDED_NS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_RANGES_FIELD_NUMBER: _ClassVar[int]
    ARRAYS_OFFSET_FIELD_NUMBER: _ClassVar[int]
    ARRAYS_LENGTH_FIELD_NUMBER: _ClassVar[int]
    INTERVENTION_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    episode_id: str
    path: str
    task: str
    source: str
    policy_version: int
    ended_ns: int
    frames: bytes
    image_ranges: bytes
    arrays_offset: int
    arrays_length: int
    intervention: bytes
    label: bytes
    def __init__(self, episode_id: _Optional[str] = ..., path: _Optional[str] = ..., task: _Optional[str] = ..., source: _Optional[str] = ..., policy_version: _Optional[int] = ..., ended_ns: _Optional[int] = ..., frames: _Optional[bytes] = ..., image_ranges: _Optional[bytes] = ..., arrays_offset: _Optional[int] = ..., arrays_length: _Optional[int] = ..., intervention: _Optional[bytes] = ..., label: _Optional[bytes] = ...) -> None: ...
