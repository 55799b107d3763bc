"""tf.train.Example: named lists of bytes, floats or integers, read with the protobuf library and no TensorFlow."""

import functools
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from sop_jax.interchange.errors import refuse

Values = list[bytes] | np.ndarray
"""One feature's values: bytes, float32 [N] or int64 [N]."""

_PACKAGE = "sop_jax.tf_example"
_LISTS = {"BytesList": "bytes", "FloatList": "float", "Int64List": "int64"}
"""Message -> type of its one repeated field, `value`; in the order of their numbers in Feature."""
_FIELD = descriptor_pb2.FieldDescriptorProto


def parse_example(data: bytes, where: str) -> dict[str, Values]:
    """Feature -> its values. Raises InvalidDatasetError."""
    example = example_class()()
    try:
        example.ParseFromString(data)
    except DecodeError as error:
        fix = "The file holds something else than examples."
        raise refuse(where, "record", expected="a tf.train.Example", got=str(error), fix=fix) from error
    values: dict[str, Values] = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        if kind == "bytes_list":
            values[name] = list(feature.bytes_list.value)
        elif kind == "float_list":
            values[name] = np.array(feature.float_list.value, np.float32)
        elif kind == "int64_list":
            values[name] = np.array(feature.int64_list.value, np.int64)
    return values


@functools.cache
def example_class() -> Any:
    """The message class of TensorFlow's example.proto and feature.proto, under a name of our own."""
    file = descriptor_pb2.FileDescriptorProto(name="sop_jax/tf_example.proto", package=_PACKAGE, syntax="proto3")
    for name, kind in _LISTS.items():
        message = file.message_type.add(name=name)
        _add(message, "value", 1, getattr(_FIELD, f"TYPE_{kind.upper()}"), repeated=True)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(_LISTS, 1):
        snake = name.replace("List", "_list").lower()
        _add(feature, snake, number, _FIELD.TYPE_MESSAGE, name).oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    _add(entry, "key", 1, _FIELD.TYPE_STRING)
    _add(entry, "value", 2, _FIELD.TYPE_MESSAGE, "Feature")
    _add(features, "feature", 1, _FIELD.TYPE_MESSAGE, "Features.FeatureEntry", repeated=True)
    example = file.message_type.add(name="Example")
    _add(example, "features", 1, _FIELD.TYPE_MESSAGE, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


def _add(
    message: descriptor_pb2.DescriptorProto,
    name: str,
    number: int,
    kind: "descriptor_pb2.FieldDescriptorProto.Type.ValueType",
    type_name: str = "",
    *,
    repeated: bool = False,
) -> descriptor_pb2.FieldDescriptorProto:
    label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, type=kind, label=label)
    if type_name:
        field.type_name = f".{_PACKAGE}.{type_name}"
    return field
