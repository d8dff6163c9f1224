"""Analysis: which values must share one type of codes, because the operator between them only moves codes."""

from __future__ import annotations

from typing import Final

import networkx

from qcompiler.ir.graph import Graph

MOVES: Final = ("max_pool2d", "pad", "reshape", "slice")


def activation_classes(graph: Graph) -> list[tuple[str, ...]]:
    """The classes, each in definition order, ordered by their first value."""
    order = {name: index for index, name in enumerate(graph.values)}
    links: networkx.Graph[str] = networkx.Graph()
    links.add_nodes_from(order)
    links.add_edges_from((node.inputs[0], node.output.name) for node in graph.nodes if node.op in MOVES)
    groups = (tuple(sorted(group, key=order.__getitem__)) for group in networkx.connected_components(links))
    return sorted(groups, key=lambda group: order[group[0]])
