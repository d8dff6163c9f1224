"""Tensors of an ONNX model whose data lies in files beside it: checked at once, mapped, and read when they are needed."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qcompiler.ir.graph import Array

if TYPE_CHECKING:
    from onnx import GraphProto, TensorProto


_WHOLE_BYTES: Final = frozenset(
    ("BFLOAT16", "BOOL", "DOUBLE", "FLOAT", "FLOAT16", "INT16", "INT32", "INT64", "INT8", "UINT16", "UINT32", "UINT64", "UINT8")
)
"""Types of which no element shares a byte with another."""


def tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every tensor of a graph and of the graphs in it."""
    yield from graph.initializer
    for attribute in (a for node in graph.node for a in node.attribute):
        yield from [attribute.t, *attribute.tensors]
        for inner in [attribute.g, *attribute.graphs]:
            yield from tensors(inner)


def is_external(tensor: TensorProto) -> bool:
    """Whether the data of ``tensor`` lies in a file."""
    return tensor.data_location == tensor.EXTERNAL


SMALL: Final = 64
"""Elements of a tensor that may hold sizes."""


class ExternalData:
    """The files in ``folder``, each mapped once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, mmap.mmap | bytes] = {}

    def check(self, graph: GraphProto) -> None:
        """Raise, whatever onnx does, unless all files lie in the folder and hold what the tensors' shapes need.

        Small tensors are read into the graph: shapes may follow from them.
        """
        from onnx import external_data_helper

        for tensor in filter(is_external, tensors(graph)):
            self._check(tensor)
            if 0 <= prod(tensor.dims) <= SMALL:
                external_data_helper.load_external_data_for_tensor(tensor, str(self.folder))

    def _check(self, tensor: TensorProto) -> None:
        place = _place(tensor)
        size = len(self._file(place.location))
        needed = place.length if place.needed is None else place.needed
        if place.length not in (None, needed):
            raise ValueError(f"the tensor {tensor.name!r} needs {needed} bytes, not {place.length}")
        if place.offset + (needed or 0) > size:
            where = f"{needed} bytes from {place.offset} on"
            raise ValueError(f"the tensor {tensor.name!r} is {where}, but {place.location!r} ends after {size}")

    def array(self, tensor: TensorProto) -> Array:
        """The data, as a view of the mapped file where numpy has such elements."""
        from onnx import numpy_helper

        place = _place(tensor)
        if place.needed is None:
            packed: Array = numpy_helper.to_array(tensor, str(self.folder))
            return packed
        flat: Array = np.frombuffer(self._file(place.location), _dtype(tensor), prod(tensor.dims), place.offset)
        return flat.reshape(tuple(tensor.dims))

    def _file(self, location: str) -> mmap.mmap | bytes:
        from onnx import TensorProto, numpy_helper

        if location not in self._files:
            nothing = TensorProto(data_type=TensorProto.UINT8, dims=[0], data_location=TensorProto.EXTERNAL)
            for key, value in (("location", location), ("length", "0")):
                nothing.external_data.add(key=key, value=value)
            numpy_helper.to_array(nothing, str(self.folder))  # onnx refuses places outside of the folder
            path = self.folder / location
            with path.open("rb") as file:
                empty = not path.stat().st_size
                self._files[location] = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._files[location]


@dataclass(frozen=True)
class _Place:
    """The file, the first byte in it, the bytes that the tensor says, and those that its shape needs (None: packed elements)."""

    location: str
    offset: int
    length: int | None
    needed: int | None


def _place(tensor: TensorProto) -> _Place:
    from onnx.external_data_helper import ExternalDataInfo

    info: Any = ExternalDataInfo(tensor)
    dtype = _dtype(tensor)
    needed = None if dtype is None else prod(tensor.dims) * dtype.itemsize
    return _Place(info.location, info.offset or 0, info.length, needed)


def _dtype(tensor: TensorProto) -> np.dtype[Any] | None:
    """The elements as they lie in the file; None where several share a byte."""
    from onnx import TensorProto, helper

    if TensorProto.DataType.Name(tensor.data_type) not in _WHOLE_BYTES:
        return None
    dtype: np.dtype[Any] = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return dtype
