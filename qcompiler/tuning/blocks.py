"""Cutting a graph into blocks of layers whose rounding is learned together.

A block ends where one value alone goes on (behind a residual addition, say), or where it has enough layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qcompiler.interpret import last_reads
from qcompiler.ir.graph import WEIGHTED, Graph, Node

MOST_LAYERS: Final = 6


@dataclass(frozen=True)
class Block:
    """Consecutive nodes; ``inputs`` they read from before, ``outputs`` are read after them. Names in the graph's order."""

    nodes: Sequence[Node]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def layers(self) -> int:
        """How many have weights."""
        return sum(node.op in WEIGHTED for node in self.nodes)


def blocks(graph: Graph, most_layers: int = MOST_LAYERS) -> list[Block]:
    """All nodes of ``graph``, in order."""
    last = last_reads(graph)
    found: list[Block] = []
    live = [value.name for value in graph.inputs]
    nodes: list[Node] = []
    for index, node in enumerate(graph.nodes):
        nodes.append(node)
        live = [name for name in (*live, node.output.name) if last.get(name, -1) > index]
        layers = sum(other.op in WEIGHTED for other in nodes)
        alone = len(live) == 1 and live[0] == node.output.name
        if index + 1 == len(graph.nodes) or (layers and alone and _next_is_layer(graph, index)) or layers >= most_layers:
            found.append(_block(graph, nodes, live))
            nodes = []
    return found


def _next_is_layer(graph: Graph, index: int) -> bool:
    """What has no weights of its own goes with the layer before it."""
    following = graph.nodes[index + 1]
    return following.op in WEIGHTED or graph.uses(graph.nodes[index].output.name) > 1


def _block(graph: Graph, nodes: Sequence[Node], live: Sequence[str]) -> Block:
    given = {node.output.name for node in nodes}
    read = [name for node in nodes for name in node.inputs if name in graph.values and name not in given]
    return Block(tuple(nodes), tuple(dict.fromkeys(read)), tuple(name for name in live if name in given))
