"""quantizer: where a quantized model rounds a tensor to codes of its own. In float it limits; rounding comes with the codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from qcompiler.ir.graph import Graph, Node, TensorType
from qcompiler.ops.clip import clamp_float
from qcompiler.ops.operator import FLOAT_STAGES, Operand, Operator, require

if TYPE_CHECKING:
    import torch


class Quantizer(Operator):
    """``quantizer(x, clamp=(low, high), step=)``: the smallest and largest number that has a code, and what lies between two."""

    name = "quantizer"
    stages = FLOAT_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) == 1, f"quantizer takes 1 operand, not {len(operands)}")
        low, high = node["clamp"]
        require(low <= 0 <= high, f"quantizer: 0 does not lie in {low} .. {high}")
        require(node["step"] > 0, f"quantizer: the step {node['step']} is not above 0")
        return operands[0].type

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return clamp_float(node, inputs[0])


def is_quantized(graph: Graph) -> bool:
    """Whether the model came quantized: a quantizer reads something that is computed."""
    return any(node.op == "quantizer" and node.inputs[0] in graph.producer for node in graph.nodes)
