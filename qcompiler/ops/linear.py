"""linear: ``x @ weight.T + bias`` over the last axis; integer stage as for conv2d, for rank 2 alone.

A pass makes 1x1 convolutions of linear layers over more axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from qcompiler.ir.dtypes import F32, I32, FloatType
from qcompiler.ir.graph import Array, Node, TensorType
from qcompiler.ops.convolution import exact_float
from qcompiler.ops.operator import ALL_STAGES, Operand, Operator, require

if TYPE_CHECKING:
    import torch


class Linear(Operator):
    """``linear(x [..., I], weight [O, I], bias [O]?)``."""

    name = "linear"
    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) in (2, 3), f"linear takes 2 or 3 operands, not {len(operands)}")
        x, weight = operands[0].type, operands[1].type
        require(len(weight.shape) == 2, f"linear: the weight {weight} is not of rank 2")
        require(bool(x.shape) and x.shape[-1] == weight.shape[1], f"linear: {x} does not end in {weight.shape[1]} features")
        integer = not isinstance(x.dtype, FloatType)
        require(not integer or len(x.shape) == 2, f"linear: {x} is not of rank 2")
        if len(operands) == 3:
            require(operands[2].type.shape == weight.shape[:1], f"linear: the bias {operands[2].type} is not [{weight.shape[0]}]")
        return TensorType(I32 if integer else F32, (*x.shape[:-1], weight.shape[0]))

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        from torch.nn import functional

        from qcompiler.ops.clip import clamp_float

        return clamp_float(node, functional.linear(inputs[0], inputs[1], inputs[2] if len(inputs) == 3 else None))

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        x, weight, *bias = inputs
        dtype = exact_float(weight, int(np.abs(x).max(initial=0)))
        total: Array = np.matmul(x.astype(dtype), weight.T.astype(dtype)).astype(np.int64)
        return total + bias[0] if bias else total
