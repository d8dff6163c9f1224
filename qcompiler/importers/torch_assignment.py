"""aten operators that give a tensor with a part of it overwritten: what ``y[..., 1:3] = z`` and ``y[y < 0] = 0`` become."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from qcompiler.importers import operands
from qcompiler.importers.builder import FixedBatchError, Known, Merged, Repeated, UnsupportedError
from qcompiler.importers.emit_assignment import assigned
from qcompiler.importers.emit_condition import Condition
from qcompiler.importers.emit_movement import expanded, reshaped
from qcompiler.importers.emit_where import where
from qcompiler.importers.torch_call import Call, Handler, table
from qcompiler.importers.torch_constants import Symbolic
from qcompiler.ir.graph import Array, Value


def _copy(c: Call) -> Value:
    return expanded(c.layer, c["src"], c.sizes())


def _slice_scatter(c: Call) -> object:
    axis, start, stop, step = c["dim"] % len(c.shape), c["start"], c["end"], c["step"]
    size = c.shape[axis]
    if axis == 0:
        whole = stop is None or isinstance(stop, Symbolic) or stop >= (c.batch or 2**31 - 1)
        if start not in (None, 0) or step != 1 or not whole:
            raise FixedBatchError("it assigns to samples of the batch")
        return c["src"]
    if isinstance(start, Symbolic) or isinstance(stop, Symbolic) or not isinstance(size, int):
        raise FixedBatchError("it assigns to a part whose size depends on the batch")
    return assigned(c.layer, c.operand, c["src"], axis, np.arange(size)[start:stop:step])


def _select_scatter(c: Call) -> object:
    axis = c["dim"] % len(c.shape)
    return assigned(c.layer, c.operand, _lifted(c, c["src"], axis), axis, _positions(c, axis, np.array([c["index"]])))


def _lifted(c: Call, x: Any, axis: int) -> Value | Known:
    """``x`` with an axis of one element."""
    if isinstance(x, Known):
        return (Repeated if isinstance(x, Repeated) else Known)(np.expand_dims(x.data, axis), x.name)
    shape = operands.value(x).type.shape
    if axis == 0:
        raise FixedBatchError("it assigns to samples of the batch")
    return reshaped(c.layer, operands.value(x), (*shape[:axis], 1, *shape[axis:]), ".lifted")


def _positions(c: Call, axis: int, indices: Array) -> Array:
    """Indices counted from 0."""
    size = c.shape[axis]
    if axis == 0 or not isinstance(size, int):
        raise FixedBatchError("it assigns to samples of the batch")
    if indices.dtype == bool:
        return np.flatnonzero(indices)
    return np.where(indices < 0, indices + size, indices)


def _index_copy(c: Call) -> object:
    axis = c["dim"] % len(c.shape)
    indices = operands.known(c["index"], "the indices").data.reshape(-1)
    return assigned(c.layer, c.operand, c["source"], axis, _positions(c, axis, indices))


def _index_fill(c: Call) -> object:
    axis = c["dim"] % len(c.shape)
    positions = _positions(c, axis, operands.known(c["index"], "the indices").data.reshape(-1))
    return assigned(c.layer, c.operand, _spread(c, c.tensor("value"), axis, len(positions)), axis, positions)


def _spread(c: Call, x: Any, axis: int, count: int) -> Value | Known:
    """``x`` broadcast to ``count`` elements along an axis, and to the result's size along the others."""
    sizes = c.sizes()
    sizes[axis] = count
    if isinstance(x, Known):
        samples = x.data.shape[0] if x.data.ndim == len(sizes) else 1
        return Known(np.broadcast_to(x.data, [samples, *(d for d in sizes[1:] if isinstance(d, int))]), x.name)
    return expanded(c.layer, x, sizes)


def _index_put(c: Call) -> object:
    """``y[..., i, ...] = z`` by constant indices along one axis, or a number where truth values hold."""
    indices = c["indices"]
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if c["accumulate"]:
        raise UnsupportedError("it adds to the elements that it chooses")
    (axis, index), *others = given
    if isinstance(index, Condition) and not others:
        if operands.scalar(c["values"]) is None or axis != 0:
            raise UnsupportedError("it assigns more than one number to elements that are chosen by truth values")
        return where(c.layer, index, c["values"], c.operand)
    known = operands.known(index, "an index").data
    if others or known.ndim != 1:
        raise UnsupportedError("it assigns by indices along several axes")
    positions = _positions(c, axis, known)
    values = c["values"]
    if isinstance(values, Merged) and values.axes == 2 and c.batch == 1:
        values = values.value  # torch leaves the axis of one sample away
    return assigned(c.layer, c.operand, _spread(c, values, axis, len(positions)), axis, positions)


OPERATORS: Final[dict[str, Handler]] = table(
    {
        "copy.default": _copy,
        "slice_scatter.default": _slice_scatter,
        "select_scatter.default": _select_scatter,
        "index_copy.default": _index_copy,
        "index_fill.int_Scalar index_fill.int_Tensor": _index_fill,
        "index_put.default _unsafe_index_put.default": _index_put,
    }
)
