"""clip (relu, relu6, hard limits) of float values, alone or fused into its producer as ``clamp=(low, high)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from qcompiler.ir.graph import Node, TensorType
from qcompiler.ops.operator import FLOAT_STAGES, Operand, Operator, require

if TYPE_CHECKING:
    import torch


class Clip(Operator):
    """``clip(x, clamp=(low, high))``; relu is ``(0, inf)``."""

    name = "clip"
    stages = FLOAT_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) == 1, f"clip takes 1 operand, not {len(operands)}")
        low, high = node["clamp"]
        require(low <= high, f"clip: the lower limit {low} is above the upper limit {high}")
        return operands[0].type

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return clamp_float(node, inputs[0])


def clamp_float(node: Node, y: torch.Tensor) -> torch.Tensor:
    """``y`` limited to the node's ``clamp`` attribute, if it has one."""
    limits = node.get("clamp")
    return y if limits is None else y.clamp(*limits)
