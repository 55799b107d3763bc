"""Parquet columns as arrays. Legend: `T` rows."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sop_jax.interchange.errors import refuse

_FIX = "The file is missing, damaged or not what info.json says; fetch the dataset again."


def read_table(path: pathlib.Path, columns: Sequence[str] | None = None) -> pa.Table:
    """These columns of a Parquet file (None = all). Raises InvalidDatasetError."""
    try:
        with pq.ParquetFile(path) as file:
            if columns is not None and (missing := [name for name in columns if name not in file.schema_arrow.names]):
                raise refuse(str(path), "columns", expected=missing, got=file.schema_arrow.names, fix=_FIX)
            return file.read(columns=None if columns is None else list(columns))
    except (OSError, pa.ArrowException) as error:
        raise refuse(str(path), "table", expected="a Parquet file", got=str(error), fix=_FIX) from error


def to_array(table: pa.Table, name: str, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Column [T, *shape]: numbers, or str and bytes objects; a shape of (1,) gives [T]. Raises InvalidDatasetError."""
    column = table.column(name).combine_chunks()
    lengths = ()
    while (
        pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type) or pa.types.is_large_list(column.type)
    ):
        sizes = pc.unique(pc.list_value_length(column))  # pyright: ignore[reportAttributeAccessIssue]
        if column.null_count or len(sizes) > 1:
            raise refuse(
                where, f"column {name}", expected=f"{list(shape)} in every row", got=sizes.to_pylist(), fix=_FIX
            )
        lengths += tuple(sizes.to_pylist())
        column = pc.list_flatten(column)  # pyright: ignore[reportAttributeAccessIssue]
    if column.null_count:
        raise refuse(where, f"column {name}", expected="a value in every row", got="none in some", fix=_FIX)
    expected = () if shape in ((1,), ()) else shape
    if table.num_rows and lengths not in (expected, shape):
        raise refuse(where, f"column {name}", expected=list(shape), got=list(lengths), fix=_FIX)
    try:
        return column.to_numpy(zero_copy_only=False).reshape(table.num_rows, *expected)
    except ValueError as error:
        raise refuse(where, f"column {name}", expected=list(shape), got=str(error), fix=_FIX) from error


def read_json_lines(path: pathlib.Path) -> list[Mapping[str, Any]]:
    """Raises InvalidDatasetError unless every line is an object."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise refuse(str(path), "lines", expected="JSON objects", got=str(error), fix=_FIX) from error
    for line in lines:
        if not isinstance(line, dict):
            raise refuse(str(path), "line", expected="a JSON object", got=line, fix=_FIX)
    return lines
