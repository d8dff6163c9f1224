"""Computes at compile time what depends on constants alone.

Before:
    const %w: f32[2] = [0x1p+0, 0x1p+1]
    %v: f32[2] = add(%w, %w)
    %y: f32[N,2] = add(%x, %v)
After:
    const %v: f32[2] = [0x1p+1, 0x1p+2]
    %y: f32[N,2] = add(%x, %v)
"""

from __future__ import annotations

from dataclasses import dataclass

from qcompiler.ir.graph import Constant, Graph, Node, Stage
from qcompiler.ops.table import OPERATORS


@dataclass(frozen=True)
class FoldConstants:
    """Evaluated by the operators' float meaning."""

    name: str = "fold_constants"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        import torch

        constants = dict(graph.constant)  # each new one takes the name of the value that it was
        kept: list[Node] = []
        for node in graph.nodes:
            if node.inputs and all(name in constants for name in node.inputs) and node.output.name not in graph.outputs:
                operands = [torch.from_numpy(constants[name].data.copy()) for name in node.inputs]
                data = OPERATORS[node.op].run_float(node, operands).numpy()
                constants[node.output.name] = Constant(node.output.name, node.output.type, data)
            else:
                kept.append(node)
        return graph.with_nodes(kept, constants.values())
