"""prelu (and leaky relu): one factor per channel, or one for all, where x is negative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from qcompiler import arith
from qcompiler.ir.dtypes import I32, FloatType
from qcompiler.ir.graph import Array, Node, TensorType
from qcompiler.ops.operator import ALL_STAGES, Operand, Operator, require, zero_of

if TYPE_CHECKING:
    import torch


class Prelu(Operator):
    """``prelu(x, slope f32[C] or f32[1])``; integer: ``prelu(x, negative i32[C], multiplier=, shift=, limits=)``.

    The channel axis is 1. Negative multipliers may have any sign; one multiplier serves all codes from the zero point on.
    """

    name = "prelu"
    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) == 2, f"prelu takes 2 operands, not {len(operands)}")
        x, slope = operands[0].type, operands[1].type
        channels = x.shape[1] if len(x.shape) > 1 else 1
        if isinstance(x.dtype, FloatType):
            require(slope.shape in ((channels,), (1,)), f"prelu: the slope {slope} is not one number for each channel of {x}")
            return x
        require(slope == TensorType(I32, (channels,)), f"prelu: {slope} is not i32[{channels}]")
        return TensorType(node.output.type.dtype, x.shape)

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        from torch.nn import functional

        return functional.prelu(inputs[0], inputs[1])

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        x, negative = inputs[0] - zero_of(operands[0]), inputs[1]
        along = negative.reshape(1, -1, *[1] * (x.ndim - 2)) if x.ndim > 1 else negative
        lo, hi = node["limits"]
        tail = (node["shift"], node.output.zero or 0, lo, hi)
        result: Array = arith.prelu(x, node["multiplier"], along, *tail, arith.NUMPY)
        return result
