"""ONNX operators that move elements: padding, slicing, gathering, joining, reshaping, resizing."""

from __future__ import annotations

from math import prod
from typing import Final

import numpy as np

from qcompiler.importers import emit_movement as emit
from qcompiler.importers import operands
from qcompiler.importers.builder import FixedBatchError, Known, Merged, Repeated, UnsupportedError, check_size
from qcompiler.importers.emit_reduction import embedding
from qcompiler.importers.onnx_call import Call, Handler
from qcompiler.importers.onnx_resize import resize, upsample
from qcompiler.ir.graph import BATCH, Dim, Value


def _pad(c: Call) -> Value:
    x, counts, axes = c.x, c.numbers("pads", 1) or c.numbers("paddings", 1) or [], c.numbers("axes", 3)
    given = c.array(2, "its operand 'constant_value'")
    fill = c.get("value", 0.0) if given is None or not given.size else float(given.reshape(-1)[0])
    rank = len(x.type.shape)
    positions = range(rank) if axes is None else [operands.axis_of(x, a) for a in axes]
    before = operands.along(positions, counts[: len(positions)], rank)
    after = operands.along(positions, counts[len(positions) :], rank)
    return emit.pad(c.layer, x, before, after, fill, c.get("mode", "constant"))


def _slice(c: Call) -> Value:
    starts, stops = c.numbers("starts", 1) or [], c.numbers("ends", 2) or []
    axes = c.numbers("axes", 3) or list(range(len(starts)))
    return emit.cropped(c.layer, c.x, axes, starts, stops, c.numbers("steps", 4) or [1] * len(starts))


def _gather(c: Call) -> Value:
    data, indices, axis = c.operand(0), c.operand(1), c.get("axis", 0)
    if isinstance(data, Known):
        if axis % data.data.ndim:
            raise UnsupportedError(f"it chooses along axis {axis} of a constant, only along axis 0 is supported")
        return embedding(c.layer, indices, data)
    return emit.gather(c.layer, data, operands.known(indices, "the indices").data, axis)


def _expand(c: Call) -> object:
    x, shape = c.operand(0), c.shape(1, "the shape")
    if isinstance(x, Known):
        return _constant_for_each_sample(c, x, shape)
    return emit.expanded(c.layer, x, shape)


def _constant_for_each_sample(c: Call, x: Known, shape: list[Dim | None]) -> Repeated:
    """A constant that is expanded to the symbolic batch."""
    if not shape or shape[0] != BATCH or x.data.ndim > len(shape) or (x.data.ndim == len(shape) and x.data.shape[0] != 1):
        raise FixedBatchError("it makes a constant of a size that depends on the batch, not in front")
    rest = [1 if d is None or d == BATCH else d for d in shape[1:]]
    check_size(rest)
    return Repeated(x.data * np.ones((1, *rest), x.data.dtype), c.names[0])


def _constant_of_shape(c: Call) -> Repeated:
    from onnx import numpy_helper

    shape, given = c.shape(0, "the shape"), c.get("value")
    fill = np.zeros(1, np.float32) if given is None else operands.as_floats(numpy_helper.to_array(given))
    return _constant_for_each_sample(c, Known(fill.reshape(-1)[0].reshape(()), ""), shape)


def _tile(c: Call) -> Value:
    counts = [int(i) for i in operands.known(c.operand(1), "the counts").data.reshape(-1)]
    return emit.repeated(c.layer, c.x, counts)


def _concat(c: Call) -> Value:
    return emit.concat(c.layer, c.inputs, c.get("axis", 1))


def _split(c: Call) -> object:
    x = c.x
    axis = operands.inner_axis(x, c.get("axis", 0), "splits")
    size, parts = x.type.shape[axis], c.numbers("split", 1)
    assert isinstance(size, int)
    if parts is None:
        count = len(c.names)
        each = -(-size // count)
        parts = [each] * (count - 1) + [size - each * (count - 1)]
    return emit.split(c.layer, x, parts, axis, c.names)


def _reshape(c: Call) -> Value | Merged:
    x = c.operand(0)
    tensor = x.value if isinstance(x, Merged) else operands.value(x)
    shape: list[Dim | None] = list(c.get("shape") or []) if c.operand(1) is None else c.shape(1, "the shape")
    wanted: list[Dim | None] = []
    for index, size in enumerate(shape):
        if size == 0 and not c.flag("allowzero"):
            if index >= len(tensor.type.shape):
                raise UnsupportedError(f"it copies dimension {index} of {tensor.type}")
            wanted.append(tensor.type.shape[index])
        else:
            wanted.append(None if size == -1 else size)
    return emit.reshape(c.layer, x, wanted)


def _flatten(c: Call) -> object:
    x = c.x
    shape, axis = x.type.shape, c.get("axis", 1)
    axis += len(shape) if axis < 0 else 0
    if axis == 0 or any(d != 1 for d in shape[1:axis]):
        raise FixedBatchError(f"it flattens {x.type} from axis {axis} on, which joins the batch with others")
    return emit.reshape(c.layer, x, [BATCH, prod(operands.sizes(x)[axis - 1 :])])


def _squeeze(c: Call) -> object:
    x, axes = c.x, c.numbers("axes", 1)
    shape = x.type.shape
    removed = {operands.axis_of(x, a) for a in axes} if axes else {i for i, d in enumerate(shape) if d == 1}
    if 0 in removed or (not axes and c.layer.builder.batch == 1):
        raise FixedBatchError("it takes the batch of 1 away")
    if any(shape[a] != 1 for a in removed):
        raise UnsupportedError(f"it takes dimensions {sorted(removed)} of {x.type} away, which are not 1")
    return emit.reshape(c.layer, x, [d for i, d in enumerate(shape) if i not in removed])


def _unsqueeze(c: Call) -> object:
    x, axes = c.x, c.numbers("axes", 1) or []
    rank = len(x.type.shape) + len(axes)
    added = {a % rank for a in axes}
    rest = iter(x.type.shape)
    shape = [1 if i in added else next(rest) for i in range(rank)]
    if 0 in added:
        raise FixedBatchError(f"it puts an axis in front of the batch of {x.type}")
    return emit.reshape(c.layer, x, shape)


def _transpose(c: Call) -> Value:
    return emit.permuted(c.layer, c.x, c.get("perm") or range(len(c.x.type.shape))[::-1])


def _depth_to_space(c: Call) -> Value:
    return emit.depth_to_space(c.layer, c.x, c.get("blocksize"), c.get("mode", "DCR"))


def _space_to_depth(c: Call) -> Value:
    return emit.space_to_depth(c.layer, c.x, c.get("blocksize"), c.get("mode", "DCR"))


OPERATORS: Final[dict[str, Handler]] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": resize,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": upsample,
}
