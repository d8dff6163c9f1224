"""Gives those who calculate with a value that is also ranked a copy of it, so that what is ranked can have wide codes.

Codes of 8 bits tie: among many nearly equal values (the peaks of a heatmap) the largest code stands at many places. A value that
only leaves the network or is ranked has 16 bits or more; where a function or a layer reads it too, that reader gets codes of 8
bits, rounded from the wide ones.

Before:
    %s: f32[N,5] = function(%h, expression="sigmoid(x)")
    %i: f32[N] = argmax(%h, axis=1, keepdims=0)
After:
    %h.copy: f32[N,5] = identity(%h)
    %s: f32[N,5] = function(%h.copy, expression="sigmoid(x)")
    %i: f32[N] = argmax(%h, axis=1, keepdims=0)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from qcompiler.ir.graph import MOVES, RANKS, Graph, Node, Stage, rename_inputs
from qcompiler.ir.names import Names
from qcompiler.passes.activation_classes import leaving_values, moved_classes


@dataclass(frozen=True)
class CopyRanked:
    """``output_bits``: of wide codes; with 8 there are none, and nothing changes."""

    output_bits: int = 16
    name: str = "copy_ranked"
    requires: Stage = Stage.CALIBRATED
    gives: Stage = Stage.CALIBRATED

    def __call__(self, graph: Graph) -> Graph:
        wanted = set(_ranked_and_read(graph)) if self.output_bits > 8 else set[str]()
        leaving, names = leaving_values(graph), Names.of(graph)
        copies: dict[str, str] = {}
        nodes: list[Node] = []
        for node in graph.nodes:
            nodes.append(rename_inputs(node, copies) if _calculates(node, leaving) else node)
            if node.output.name in wanted:
                copy = replace(node.output, name=names.fresh(f"{node.output.name}.copy"))
                copies[node.output.name] = copy.name
                nodes.append(Node("identity", (node.output.name,), (copy,), origin=node.origin))
        return graph.with_nodes(nodes)


def _calculates(node: Node, leaving: frozenset[str]) -> bool:
    """Whether ``node`` takes codes of 8 bits for what it calculates."""
    passes_on = node.op in (*MOVES, *RANKS, "identity") or (node.op == "concat" and node.output.name in leaving)
    return not passes_on


def _ranked_and_read(graph: Graph) -> Iterator[str]:
    """Computed values that something calculates with, and that are ranked, as they are or moved."""
    leaving = leaving_values(graph)
    for unit in moved_classes(graph):
        readers = {name: graph.consumers[name] for name in unit}
        ranked = any(node.op in RANKS for nodes in readers.values() for node in nodes)
        if ranked and all(name in graph.producer for name in unit):
            yield from (name for name, nodes in readers.items() if any(_calculates(node, leaving) for node in nodes))
