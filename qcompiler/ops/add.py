"""add: two tensors; in the integer stage two code tensors rescaled and rounded once.

Integer: ``clamp(((a - za) * m1 + (b - zb) * m2 + (1 << (s-1))) >> s) + z, lo, hi)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from qcompiler import arith
from qcompiler.ir.dtypes import F32, FloatType
from qcompiler.ir.graph import Array, Node, TensorType
from qcompiler.ops.operator import ALL_STAGES, Operand, Operator, require, zero_of

if TYPE_CHECKING:
    import torch


class Add(Operator):
    """``add(a, b)``: float with numpy broadcasting and optional ``clamp``; integer with equal shapes,
    ``multipliers=(m1, m2)``, ``shift=``, ``limits=(lo, hi)``."""  # fmt: skip

    name = "add"
    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) == 2, f"add takes 2 operands, not {len(operands)}")
        a, b = operands[0].type, operands[1].type
        if isinstance(a.dtype, FloatType):
            # A prime that no model has as a dimension stands for the batch, so that numpy can broadcast shapes.
            stand_in = 2**31 - 1
            try:
                shape = np.broadcast_shapes(a.with_batch(stand_in), b.with_batch(stand_in))
            except ValueError:
                require(False, f"add: {a} and {b} cannot be broadcast together")
            return TensorType(F32, tuple("N" if d == stand_in else d for d in shape))
        require(a.shape == b.shape, f"add: {a} and {b} have different shapes")
        return TensorType(node.output.type.dtype, a.shape)

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        from qcompiler.ops.clip import clamp_float

        return clamp_float(node, inputs[0] + inputs[1])

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        a, b = (x - zero_of(operand) for x, operand in zip(inputs, operands, strict=True))
        m1, m2 = node["multipliers"]
        lo, hi = node["limits"]
        result: Array = arith.add(a, m1, b, m2, node["shift"], node.output.zero or 0, lo, hi, arith.NUMPY)
        return result
