"""Max and average pooling over height and width; of ``[N,C,D,H,W]`` every depth slice on its own.

Max pooling pads with the smallest code; average pooling sums ``x - zero`` over the counted taps and multiplies by a
multiplier of a table indexed by their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from typing_extensions import override

from qcompiler import arith
from qcompiler.ir.dtypes import FloatType, IntegerType
from qcompiler.ir.graph import Array, Node, TensorType
from qcompiler.ops.convolution import by_slice
from qcompiler.ops.operator import ALL_STAGES, Operand, Operator, require, window_size, zero_of

if TYPE_CHECKING:
    import torch

MANY_TAPS: Final = 64
"""Windows that are larger are not stacked: that would take their size times the result's memory."""


def pooled_shape(node: Node, x: TensorType, dilation: tuple[int, int]) -> TensorType:
    """The shape after pooling; padding is top, left, bottom, right."""
    require(len(x.shape) in (4, 5), f"{node.op} needs an operand of rank 4 or 5, not {x}")
    (kh, kw), (sh, sw), (top, left, bottom, right) = node["kernel"], node["strides"], node["padding"]
    require(max(top, bottom) < kh * dilation[0] and max(left, right) < kw * dilation[1], f"{node.op}: padding exceeds the window")
    ceil_mode = bool(node.get("ceil_mode", 0))
    height = window_size(x.shape[-2], top, bottom, kh, sh, dilation[0], ceil_mode)
    width = window_size(x.shape[-1], left, right, kw, sw, dilation[1], ceil_mode)
    return TensorType(x.dtype, (*x.shape[:-2], height, width))


def counted_taps(node: Node, x: TensorType) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many rows (columns) every output row (column) of an average pooling counts; their product is the divisor."""
    (kh, kw), (sh, sw), (top, left, bottom, right) = node["kernel"], node["strides"], node["padding"]
    out = pooled_shape(node, x, (1, 1)).with_batch(1)
    height, width = x.with_batch(1)[-2:]
    include = bool(node.get("count_include_pad", 0))

    def along(size: int, out_size: int, kernel: int, stride: int, before: int, after: int) -> tuple[int, ...]:
        low, high = (-before, size + after) if include else (0, size)
        return tuple(min(o * stride - before + kernel, high) - max(o * stride - before, low) for o in range(out_size))

    return along(height, out[-2], kh, sh, top, bottom), along(width, out[-1], kw, sw, left, right)


def windows(node: Node, x: Array, fill: int, dilation: tuple[int, int], out_shape: tuple[int, ...]) -> Array:
    """Every window of a padded ``[N,C,H,W]`` as ``[N,C,OH,OW,KH,KW]`` (a view)."""
    (kh, kw), (sh, sw), (top, left, _, _) = node["kernel"], node["strides"], node["padding"]
    oh, ow = out_shape[-2:]
    below = max(0, (oh - 1) * sh + dilation[0] * (kh - 1) + 1 - top - x.shape[2])
    behind = max(0, (ow - 1) * sw + dilation[1] * (kw - 1) + 1 - left - x.shape[3])
    x = np.pad(x, ((0, 0), (0, 0), (top, below), (left, behind)), constant_values=fill)
    span = (dilation[0] * (kh - 1) + 1, dilation[1] * (kw - 1) + 1)
    view = np.lib.stride_tricks.sliding_window_view(x, span, axis=(2, 3))
    return view[:, :, : (oh - 1) * sh + 1 : sh, : (ow - 1) * sw + 1 : sw, :: dilation[0], :: dilation[1]]


def _padded(node: Node, x: torch.Tensor, fill: float, dilation: tuple[int, int]) -> tuple[torch.Tensor, int, int]:
    """``x`` with padding, as much as the last windows need, and the height and width of the result."""
    from torch.nn import functional

    (kh, kw), (sh, sw), (top, left, bottom, right) = node["kernel"], node["strides"], node["padding"]
    ceil_mode = bool(node.get("ceil_mode", 0))
    oh = window_size(x.shape[-2], top, bottom, kh, sh, dilation[0], ceil_mode)
    ow = window_size(x.shape[-1], left, right, kw, sw, dilation[1], ceil_mode)
    below = max(0, (oh - 1) * sh + dilation[0] * (kh - 1) + 1 - top - x.shape[-2])
    behind = max(0, (ow - 1) * sw + dilation[1] * (kw - 1) + 1 - left - x.shape[-1])
    return functional.pad(x, (left, behind, top, below), value=fill), oh, ow


def _float_maxima(node: Node, x: torch.Tensor) -> torch.Tensor:
    """The largest element of every window, for any padding and ceil mode."""
    from torch.nn import functional

    x, oh, ow = _padded(node, x, float("-inf"), node["dilation"])
    y = functional.max_pool2d(_images(x), node["kernel"], node["strides"], 0, node["dilation"])
    return y[..., :oh, :ow].reshape(*x.shape[:-2], oh, ow)


def _float_sums(node: Node, x: torch.Tensor) -> torch.Tensor:
    """The sum of every window, for any padding and ceil mode."""
    import torch
    from torch.nn import functional

    (kh, kw), (sh, sw) = node["kernel"], node["strides"]
    x, oh, ow = _padded(node, x, 0.0, (1, 1))
    if kh * kw > MANY_TAPS:
        y = functional.avg_pool2d(_images(x), (kh, kw), (sh, sw), divisor_override=1)
        return y[..., :oh, :ow].reshape(*x.shape[:-2], oh, ow)
    height, width = (oh - 1) * sh + 1, (ow - 1) * sw + 1
    taps = [x[..., r : r + height : sh, c : c + width : sw] for r in range(kh) for c in range(kw)]
    return torch.stack(taps, dim=-1).sum(dim=-1)


def _images(x: torch.Tensor) -> torch.Tensor:
    """Depth slices as channels."""
    return x if x.ndim == 4 else x.flatten(1, 2)


class MaxPool2d(Operator):
    """``max_pool2d(x, kernel=, strides=, padding=, dilation=, ceil_mode=)``; works on codes as on floats."""

    name = "max_pool2d"
    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        return pooled_shape(node, operands[0].type, node["dilation"])

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return _float_maxima(node, inputs[0])

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        dtype = operands[0].type.dtype
        assert isinstance(dtype, IntegerType)
        if inputs[0].ndim == 5:
            return by_slice(inputs[0], lambda images: self.run_integer(node, operands, [images]))
        out = node.output.type.with_batch(len(inputs[0]))
        result: Array = windows(node, inputs[0], dtype.minimum, node["dilation"], out).max(axis=(-1, -2))
        return result


class AveragePool2d(Operator):
    """``average_pool2d(x, kernel=, strides=, padding=, ceil_mode=, count_include_pad=)``.

    Integer stage: ``counts`` lists the numbers of taps that occur, ``multipliers`` the factor for each of them.
    """

    name = "average_pool2d"
    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        shape = pooled_shape(node, operands[0].type, (1, 1)).shape
        floating = isinstance(operands[0].type.dtype, FloatType)
        return TensorType(operands[0].type.dtype if floating else node.output.type.dtype, shape)

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        from qcompiler.ops.clip import clamp_float

        (x,) = inputs
        rows, columns = counted_taps(node, TensorType(node.output.type.dtype, tuple(x.shape)))
        divisor = x.new_tensor(np.outer(rows, columns))
        return clamp_float(node, _float_sums(node, x) / divisor)

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        (x,), zero = inputs, zero_of(operands[0])
        if x.ndim == 5:
            return by_slice(x, lambda images: self.run_integer(node, operands, [images]))
        out = node.output.type.with_batch(len(x))
        total = windows(node, x - zero, 0, (1, 1), out).sum(axis=(-1, -2))
        table = np.zeros(max(node["counts"]) + 1, dtype=np.int64)
        table[list(node["counts"])] = node["multipliers"]
        multiplier = table[np.outer(*counted_taps(node, operands[0].type))]
        lo, hi = node["limits"]
        result: Array = arith.requantize(total, multiplier, node["shift"], node.output.zero or 0, lo, hi, arith.NUMPY)
        return result
