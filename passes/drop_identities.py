"""Removes nodes that do nothing: identity and dropout, reshapes to the same shape, empty pads, whole slices.

Before:
    %a: f32[N,4] = identity(%x)  # drop
    %b: f32[N,4] = reshape(%a, shape=("N", 4))
    return %b
After:
    return %x
"""

from __future__ import annotations

from dataclasses import dataclass

from qcompiler.ir.graph import Graph, Node, Stage, rename_inputs

_MOVES = ("identity", "reshape", "pad", "slice")


@dataclass(frozen=True)
class DropIdentities:
    """The node's readers read its operand instead."""

    name: str = "drop_identities"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        renames: dict[str, str] = {}
        kept: list[Node] = []
        for node in graph.nodes:
            node = rename_inputs(node, renames)
            if node.op in _MOVES and node.output.type == graph.type_of(node.inputs[0]) and min(node.get("steps", (1,))) > 0:
                renames[node.output.name] = node.inputs[0]
            else:
                kept.append(node)
        return graph.with_nodes(kept, outputs=[renames.get(name, name) for name in graph.outputs])
