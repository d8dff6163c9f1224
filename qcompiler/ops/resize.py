"""resize_linear: linear interpolation over height and width with whole-number weights.

Along an axis, output index o reads the source position ``(o * numerator + offset) / denominator``, limited to the input. With
``i`` its floor and ``w`` the remainder the element is ``(x[i] * (denominator - w) + x[i + 1] * w) / denominator``: exact in
integers, up to one rounding of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from qcompiler import arith
from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import Array, Node, TensorType
from qcompiler.ops.operator import ALL_STAGES, Operand, Operator, require, zero_of

if TYPE_CHECKING:
    import torch


def linear_taps(size: int, out: int, numerator: int, offset: int, denominator: int) -> tuple[Array, Array, Array]:
    """For every output index along one axis: first index, second index, weight of the second of ``denominator``; int64[out]."""
    position = np.clip(np.arange(out) * numerator + offset, 0, (size - 1) * denominator)
    first = position // denominator
    return first, np.minimum(first + 1, size - 1), position % denominator


class ResizeLinear(Operator):
    """``resize_linear(x [N,C,H,W], sizes=, numerators=, offsets=, denominators=)``, pairs for height and width.

    Integer: ``multiplier=``, ``shift=``, what 1 / (product of the denominators) is; the codes are those of x.
    """

    name = "resize_linear"
    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        x = operands[0].type
        require(len(x.shape) == 4, f"resize_linear needs an operand of rank 4, not {x}")
        require(min((*node["sizes"], *node["denominators"])) >= 1, "resize_linear: sizes and denominators are at least 1")
        require(min(node["numerators"]) >= 0, "resize_linear: numerators are not negative")
        return TensorType(x.dtype, (*x.shape[:2], *node["sizes"]))

    @staticmethod
    def _taps(node: Node, shape: Sequence[int]) -> list[tuple[Array, Array, Array]]:
        parts = zip(shape[2:], node["sizes"], node["numerators"], node["offsets"], node["denominators"], strict=True)
        return [linear_taps(*part) for part in parts]

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        y = inputs[0]
        for axis, (first, second, weight) in zip((2, 3), self._taps(node, inputs[0].shape), strict=True):
            share = torch.from_numpy(weight / node["denominators"][axis - 2]).to(y.dtype)
            share = share.reshape(-1, 1) if axis == 2 else share
            low, high = (y.index_select(axis, torch.from_numpy(i)) for i in (first, second))
            y = low * (1 - share) + high * share
        return y

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        zero, dtype = zero_of(operands[0]), node.output.type.dtype
        assert isinstance(dtype, IntegerType)
        total = inputs[0] - zero
        for axis, (first, second, weight) in zip((2, 3), self._taps(node, inputs[0].shape), strict=True):
            along = weight.reshape(-1, 1) if axis == 2 else weight
            rest = node["denominators"][axis - 2] - along
            total = np.take(total, first, axis) * rest + np.take(total, second, axis) * along
        limits = dtype.minimum, dtype.maximum
        result: Array = arith.requantize(total, node["multiplier"], node["shift"], zero, *limits, arith.NUMPY)
        return result
