"""conv2d: float with an optional fused clamp, or raw codes to int32 accumulators.

Of a tensor ``[N,C,D,H,W]`` every depth slice is convolved on its own.

Integer stage: ``acc = sum over taps of code(x) * code(w) + bias``. Codes are raw: the bias constant already carries
``-zero(x) * sum(w)``, and padding taps read the code ``zero(x)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from qcompiler.ir.dtypes import F32, I32, FloatType
from qcompiler.ir.graph import Array, Node, TensorType
from qcompiler.ops.operator import ALL_STAGES, Operand, Operator, require, window_size, zero_of

if TYPE_CHECKING:
    import torch


class Convolution2d(Operator):
    """``conv2d(x [N,C,H,W], weight [O,C/groups,KH,KW], bias [O]?)``; padding is top, left, bottom, right."""

    name = "conv2d"
    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) in (2, 3), f"conv2d takes 2 or 3 operands, not {len(operands)}")
        x, weight = operands[0].type, operands[1].type
        ranks = len(x.shape), len(weight.shape)
        require(ranks in ((4, 4), (5, 4)), f"conv2d needs an image of rank 4 or 5 and weights of rank 4, not {x} and {weight}")
        groups = node["groups"]
        out_channels, in_channels, kernel_height, kernel_width = weight.with_batch(0)
        require(x.shape[1] == in_channels * groups, f"conv2d: {x} does not have {groups} groups of {in_channels} channels")
        require(out_channels % groups == 0, f"conv2d: {out_channels} output channels do not split into {groups} groups")
        if len(operands) == 3:
            require(operands[2].type.shape == (out_channels,), f"conv2d: the bias {operands[2].type} is not [{out_channels}]")
        top, left, bottom, right = node["padding"]
        height = window_size(x.shape[-2], top, bottom, kernel_height, node["strides"][0], node["dilation"][0])
        width = window_size(x.shape[-1], left, right, kernel_width, node["strides"][1], node["dilation"][1])
        floating = isinstance(x.dtype, FloatType)
        return TensorType(F32 if floating else I32, (x.shape[0], out_channels, *x.shape[2:-2], height, width))

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        from torch.nn import functional

        from qcompiler.ops.clip import clamp_float

        x, weight, *bias = inputs
        if x.ndim == 5:
            y = self.run_float(node, [x.transpose(1, 2).flatten(0, 1), weight, *bias])
            return y.reshape(len(x), x.shape[2], *y.shape[1:]).transpose(1, 2)
        top, left, bottom, right = node["padding"]
        padding = (top, left)
        if (top, left) != (bottom, right):
            x, padding = functional.pad(x, (left, right, top, bottom)), (0, 0)
        y = functional.conv2d(x, weight, bias[0] if bias else None, node["strides"], padding, node["dilation"], node["groups"])
        return clamp_float(node, y)

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        x, weight, *bias = inputs
        if x.ndim == 5:
            return by_slice(x, lambda images: self.run_integer(node, operands, [images, weight, *bias]))
        top, left, bottom, right = node["padding"]
        x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=zero_of(operands[0]))
        total = convolve(x, weight, node["strides"], node["dilation"], node["groups"])
        return total + bias[0][None, :, None, None] if bias else total


def by_slice(x: Array, run: Callable[[Array], Array]) -> Array:
    """``run`` over the depth slices of ``[N,C,D,H,W]``, as images of a larger batch."""
    n, _, depth = x.shape[:3]
    y = run(np.moveaxis(x, 2, 1).reshape(n * depth, x.shape[1], *x.shape[3:]))
    return np.moveaxis(y.reshape(n, depth, *y.shape[1:]), 1, 2)


def exact_float(weight: Array, largest_input: int) -> type[np.floating[Any]]:
    """The narrowest float type that holds every partial sum of ``weight [O, ...]`` times codes up to ``largest_input`` exactly.

    Float matrix products are many times faster than int64 ones. The overflow proof bounds every sum by 2^31, so float64,
    exact to 2^53, always serves.
    """
    bound = int(np.abs(weight.reshape(len(weight), -1)).sum(axis=1).max(initial=0)) * largest_input
    return np.float32 if bound < 1 << 24 else np.float64


def convolve(x: Array, weight: Array, strides: tuple[int, int], dilation: tuple[int, int], groups: int) -> Array:
    """Exact sums of products of a padded int64 ``[N,C,H,W]`` and ``[O,C/groups,KH,KW]``, int64."""
    n, channels, height, width = x.shape
    out_channels, group_channels, kernel_height, kernel_width = weight.shape
    out_height = (height - dilation[0] * (kernel_height - 1) - 1) // strides[0] + 1
    out_width = (width - dilation[1] * (kernel_width - 1) - 1) // strides[1] + 1
    rows = [slice(r * dilation[0], r * dilation[0] + (out_height - 1) * strides[0] + 1, strides[0]) for r in range(kernel_height)]
    columns = [
        slice(c * dilation[1], c * dilation[1] + (out_width - 1) * strides[1] + 1, strides[1]) for c in range(kernel_width)
    ]
    taps = [(r, c) for r in rows for c in columns]
    total = np.zeros((n, out_channels, out_height, out_width), dtype=np.int64)
    if group_channels == 1 and out_channels == channels:
        factors = weight.reshape(channels, -1)
        for index, (r, c) in enumerate(taps):
            total += x[:, :, r, c] * factors[None, :, index, None, None]
        return total
    dtype = exact_float(weight, int(np.abs(x).max(initial=0)))
    matrix = weight.astype(dtype).reshape(groups, out_channels // groups, -1)
    patches = np.empty((channels, len(taps), out_height, out_width), dtype=dtype)
    for sample, image in enumerate(x.astype(dtype)):
        for index, (r, c) in enumerate(taps):
            patches[:, index] = image[:, r, c]
        sums = np.matmul(matrix, patches.reshape(groups, group_channels * len(taps), -1))
        total[sample] = sums.reshape(out_channels, out_height, out_width)
    return total
