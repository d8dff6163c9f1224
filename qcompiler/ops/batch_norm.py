"""Batch normalization with its running statistics (inference only)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from qcompiler.ir.graph import Node, Stage, TensorType
from qcompiler.ops.operator import Operand, Operator, require

if TYPE_CHECKING:
    import torch


class BatchNorm(Operator):
    """``batch_norm(x [N,C,...], gamma [C], beta [C], mean [C], variance [C], epsilon=)``."""

    name = "batch_norm"
    stages = frozenset({Stage.FLOAT})

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) == 5, f"batch_norm takes 5 operands, not {len(operands)}")
        x = operands[0].type
        require(len(x.shape) >= 2, f"batch_norm: {x} has no channel axis")
        for operand in operands[1:]:
            require(operand.type.shape == (x.shape[1],), f"batch_norm: {operand.type} does not match {x.shape[1]} channels")
        return x

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        from torch.nn import functional

        x, gamma, beta, mean, variance = inputs
        return functional.batch_norm(x, mean, variance, gamma, beta, training=False, eps=node["epsilon"])
