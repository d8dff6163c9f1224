"""Analysis: which values must share one type of codes, because the operator between them only moves codes.

Parts of a concatenation that nothing else reads share the whole's codes: rescaling them afterwards could only lose. So do
concatenations that are parts of another one, as in densely connected networks, where a rescaling at every layer would add up.
Other parts keep codes of their own and are rescaled.
"""

from __future__ import annotations

from collections.abc import Iterator

import networkx

from qcompiler.ir.graph import MOVES, Graph, Node


def activation_classes(graph: Graph) -> list[tuple[str, ...]]:
    """The classes, each in definition order, ordered by their first value."""
    order = {name: index for index, name in enumerate(graph.values)}
    links: networkx.Graph[str] = networkx.Graph()
    links.add_nodes_from(order)
    for node in graph.nodes:
        links.add_edges_from((name, node.output.name) for name in shared_operands(graph, node))
    groups = (tuple(sorted(group, key=order.__getitem__)) for group in networkx.connected_components(links))
    return sorted(groups, key=lambda group: order[group[0]])


def shared_operands(graph: Graph, node: Node) -> Iterator[str]:
    """The operands of ``node`` that have the codes of its result."""
    if node.op in MOVES:
        yield node.inputs[0]
    elif node.op == "concat":
        for name in dict.fromkeys(node.inputs):
            source = graph.producer.get(name)
            dense = source is not None and source.op == "concat"
            if name in graph.values and (dense or graph.uses(name) == 1):
                yield name
