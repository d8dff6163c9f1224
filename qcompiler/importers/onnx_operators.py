"""The ONNX operators, from operator set 7 on, by their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Literal

import numpy as np

from qcompiler.importers import emit
from qcompiler.importers.builder import Ending, FixedBatchError, Known, Layer, UnsupportedError, dims
from qcompiler.importers.onnx_sizes import Sizes
from qcompiler.ir.graph import BATCH, Array, Value


@dataclass(frozen=True)
class Call:
    """One node: its operands, attributes, the model's operator set and constant batch; ``extra``: a second output is read."""

    layer: Layer
    inputs: list[Any]
    attributes: dict[str, Any]
    opset: int
    batch: int | None
    extra: bool

    def operand(self, index: int) -> Any:
        """An operand, None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute; strings are decoded."""
        found = self.attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else found

    def array(self, index: int, what: str) -> Array | None:
        """The data of a constant operand, None where it is left out."""
        x = emit.optional_known(self.operand(index), what)
        return None if x is None else x.data

    def numbers(self, attribute: str, index: int) -> list[int] | None:
        """Integers that stand in an attribute in older operator sets and in an operand in newer ones."""
        if attribute in self.attributes:
            return [int(i) for i in self.attributes[attribute]]
        data = self.array(index, f"its operand {attribute!r}")
        return None if data is None else [int(i) for i in data.reshape(-1)]


Handler = Callable[[Call], Value | Ending]


@dataclass(frozen=True)
class _Windows:
    strides: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


def _windows(c: Call, x: Value, kernel: Sequence[int]) -> _Windows:
    """Strides, dilation and padding (top, left, bottom, right) with auto_pad worked out."""
    size = emit.image(x)
    strides, dilation = tuple(c.get("strides", (1, 1))), tuple(c.get("dilations", (1, 1)))
    auto = c.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return _Windows(strides, emit.same_padding(size, kernel, strides, dilation, auto == "SAME_UPPER"), dilation)
    return _Windows(strides, (0, 0, 0, 0) if auto == "VALID" else tuple(c.get("pads", (0, 0, 0, 0))), dilation)


def _conv(c: Call) -> Value:
    x, weight = emit.value(c.operand(0)), emit.known(c.operand(1), "the weight")
    if weight.data.ndim != 4:
        raise UnsupportedError(f"only 2-d convolutions are supported, the weight is {dims(weight.data.shape)}")
    w = _windows(c, x, weight.data.shape[2:])
    return emit.convolution(c.layer, x, weight, c.operand(2), w.strides, w.padding, w.dilation, c.get("group", 1))


def _gemm(c: Call) -> Value:
    x, weight, bias = emit.value(c.operand(0)), emit.known(c.operand(1), "B"), emit.optional_known(c.operand(2), "C")
    if c.get("transA", 0):
        raise UnsupportedError("transA=1 is not supported")
    weight = emit.scaled(weight, c.get("alpha", 1.0))
    if not c.get("transB", 0):
        weight = Known(weight.data.T, weight.name)
    return emit.linear(c.layer, x, weight, bias and emit.scaled(bias, c.get("beta", 1.0)))


def _matmul(c: Call) -> Value:
    weight = emit.known(c.operand(1), "the second operand")
    return emit.linear(c.layer, c.operand(0), Known(weight.data.T, weight.name), None)


def _batch_norm(c: Call) -> Value:
    if c.get("training_mode", 0) or c.extra:
        raise UnsupportedError("it is in training mode; export the model for inference")
    if not c.get("spatial", 1):
        raise UnsupportedError("spatial=0 is not supported")
    return emit.batch_norm(c.layer, c.operand(0), c.inputs[1:5], c.get("epsilon", 1e-5))


def _relu(c: Call) -> Value:
    return emit.clip(c.layer, c.operand(0), 0.0, None)


def _clip(c: Call) -> Value:
    limits: list[float | None] = []
    for index, name in ((1, "min"), (2, "max")):
        data = c.array(index, f"its operand {name!r}")
        limits.append(c.get(name) if data is None else float(data.reshape(-1)[0]))
    return emit.clip(c.layer, c.operand(0), *limits)


def _add(c: Call) -> Value:
    return emit.add(c.layer, c.operand(0), c.operand(1))


def _max_pool(c: Call) -> Value:
    if c.extra:
        raise UnsupportedError("its second output (indices) is not supported")
    x, kernel = emit.value(c.operand(0)), c.get("kernel_shape")
    w = _windows(c, x, kernel)
    return emit.max_pool(c.layer, x, kernel, w.strides, w.padding, w.dilation, bool(c.get("ceil_mode", 0)))


def _average_pool(c: Call) -> Value:
    x, kernel = emit.value(c.operand(0)), c.get("kernel_shape")
    w = _windows(c, x, kernel)
    if w.dilation != (1, 1):
        raise UnsupportedError(f"dilations {w.dilation} are not supported")
    ceil_mode, include = bool(c.get("ceil_mode", 0)), bool(c.get("count_include_pad", 0))
    return emit.average_pool(c.layer, x, kernel, w.strides, w.padding, ceil_mode, include)


def _global_average_pool(c: Call) -> Value:
    x = emit.value(c.operand(0))
    return emit.mean(c.layer, x, range(2, len(x.type.shape)), keepdims=True)


def _global_max_pool(c: Call) -> Value:
    x = emit.value(c.operand(0))
    size = emit.image(x)
    return emit.max_pool(c.layer, x, size, (1, 1), (0, 0, 0, 0), (1, 1), False)


def _reduce_mean(c: Call) -> Value:
    axes = c.numbers("axes", 1)
    if not axes and c.get("noop_with_empty_axes", 0):
        return emit.value(c.operand(0))
    return emit.mean(c.layer, c.operand(0), axes or None, bool(c.get("keepdims", 1)))


def _pad(c: Call) -> Value:
    if c.get("mode", "constant") != "constant":
        raise UnsupportedError(f"only constant padding is supported, not mode {c.get('mode')!r}")
    x, counts, axes = emit.value(c.operand(0)), c.numbers("pads", 1) or [], c.numbers("axes", 3)
    given = c.array(2, "its operand 'constant_value'")
    fill = c.get("value", 0.0) if given is None or not given.size else float(given.reshape(-1)[0])
    rank = len(x.type.shape)
    positions = range(rank) if axes is None else [emit.axis_of(x, a) for a in axes]
    before, after = [0] * rank, [0] * rank
    for index, axis in enumerate(positions):
        before[axis], after[axis] = counts[index], counts[index + len(positions)]
    return emit.pad(c.layer, x, before, after, fill)


def _slice(c: Call) -> Value:
    x = emit.value(c.operand(0))
    starts, stops = c.numbers("starts", 1) or [], c.numbers("ends", 2) or []
    axes = c.numbers("axes", 3) or list(range(len(starts)))
    return emit.cropped(c.layer, x, axes, starts, stops, c.numbers("steps", 4) or [1] * len(starts))


def _reshape(c: Call) -> Value:
    x, wanted = emit.value(c.operand(0)), c.operand(1)
    sizes = wanted.items if isinstance(wanted, Sizes) else emit.known(wanted, "the shape").data.reshape(-1).tolist()
    shape: list[int | Literal["N"] | None] = []
    for index, size in enumerate(sizes):
        if size == 0 and not c.get("allowzero", 0):
            if index >= len(x.type.shape):
                raise UnsupportedError(f"it copies dimension {index} of {x.type}")
            shape.append(x.type.shape[index])
        else:
            shape.append(None if size == -1 else size)
    return emit.reshape(c.layer, x, shape, c.batch)


def _flatten(c: Call) -> Value:
    x = emit.value(c.operand(0))
    shape, axis = x.type.shape, c.get("axis", 1)
    axis += len(shape) if axis < 0 else 0
    if axis == 0 or any(d != 1 for d in shape[1:axis]):
        raise FixedBatchError(f"it flattens {x.type} from axis {axis} on, which joins the batch with others")
    return emit.reshape(c.layer, x, [BATCH, prod(emit.sizes(x)[axis - 1 :])], c.batch)


def _squeeze(c: Call) -> Value:
    x, axes = emit.value(c.operand(0)), c.numbers("axes", 1)
    shape = x.type.shape
    removed = {emit.axis_of(x, a) for a in axes} if axes else {i for i, d in enumerate(shape) if d == 1}
    if 0 in removed or (not axes and c.batch == 1):
        raise FixedBatchError("it takes the batch of 1 away")
    if any(shape[a] != 1 for a in removed):
        raise UnsupportedError(f"it takes dimensions {sorted(removed)} of {x.type} away, which are not 1")
    return emit.reshape(c.layer, x, [d for i, d in enumerate(shape) if i not in removed], c.batch)


def _unsqueeze(c: Call) -> Value:
    x, axes = emit.value(c.operand(0)), c.numbers("axes", 1) or []
    rank = len(x.type.shape) + len(axes)
    added = {a % rank for a in axes}
    rest = iter(x.type.shape)
    return emit.reshape(c.layer, x, [1 if i in added else next(rest) for i in range(rank)], None)


def _transpose(c: Call) -> Value:
    x = emit.value(c.operand(0))
    return emit.permuted(c.layer, x, c.get("perm") or range(len(x.type.shape))[::-1])


def _identity(c: Call) -> Value:
    return c.layer.emit("identity", [emit.value(c.operand(0))])


def _dropout(c: Call) -> Value:
    training = c.array(2, "its operand 'training_mode'")
    if c.extra or (training is not None and bool(np.any(training))):
        raise UnsupportedError("it is in training mode; export the model for inference")
    return _identity(c)


def _cast(c: Call) -> Value:
    from onnx import TensorProto

    if c.get("to") != TensorProto.FLOAT:
        raise UnsupportedError(f"it converts activations to {TensorProto.DataType.Name(c.get('to')).lower()}")
    return emit.value(c.operand(0))


def _softmax(function: Literal["softmax", "log_softmax"]) -> Handler:
    def handler(c: Call) -> Ending:
        x = emit.value(c.operand(0))
        axis = emit.axis_of(x, c.get("axis", -1 if c.opset >= 13 else 1))
        if c.opset < 13 and axis != len(x.type.shape) - 1:  # until then all axes from this one on were one
            raise UnsupportedError(f"before operator set 13 a softmax of {x.type} from axis {axis} on is not supported")
        return emit.ending(c.layer, x, function, axis)

    return handler


OPERATORS: Final[dict[str, Handler]] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Conv": _conv,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "Identity": _identity,
    "LogSoftmax": _softmax("log_softmax"),
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Relu": _relu,
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": _softmax("softmax"),
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
