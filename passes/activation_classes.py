"""Analysis: which values must share one type of codes, because the operator between them only moves codes.

Parts of a concatenation that nothing else reads share the whole's codes: rescaling them afterwards could only lose. So do
concatenations that are parts of another one, as in densely connected networks, where a rescaling at every layer would add up.
Other parts keep codes of their own and are rescaled, and so do those that ``passes.separate_codes`` names in the attribute
``own`` of a concatenation, because sharing would cost them or what they are moved from too much. Values that a quantizer settles
have the quantizer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import networkx

from qcompiler.ir.graph import MOVES, RANKS, Graph, Node
from qcompiler.passes.quantizers import has_few_steps, settled_parts, settles


def activation_classes(graph: Graph) -> list[tuple[str, ...]]:
    """The classes, each in definition order, ordered by their first value."""
    return _groups(graph, lambda node: shared_operands(graph, node))


def moved_classes(graph: Graph) -> list[tuple[str, ...]]:
    """The same for moves alone: what shares codes whatever concatenations do."""
    return _groups(graph, lambda node: node.inputs[:1] if node.op in MOVES else ())


def _groups(graph: Graph, operands: Callable[[Node], Iterable[str]]) -> list[tuple[str, ...]]:
    order = {name: index for index, name in enumerate(graph.values)}
    links: networkx.Graph[str] = networkx.Graph()
    links.add_nodes_from(order)
    for node in graph.nodes:
        links.add_edges_from((name, node.output.name) for name in operands(node))
    groups = (tuple(sorted(group, key=order.__getitem__)) for group in networkx.connected_components(links))
    return sorted(groups, key=lambda group: order[group[0]])


def shared_operands(graph: Graph, node: Node) -> Iterator[str]:
    """The operands of ``node`` that have the codes of its result."""
    if node.op in MOVES:
        yield node.inputs[0]
    elif node.op == "quantizer":
        if settles(graph, node):
            yield node.inputs[0]
    elif node.op == "concat" and (settled := settled_parts(graph, node)) is not None:
        yield from settled
    elif node.op == "concat":
        own = {node.inputs[index] for index in node.get("own", ())}
        yield from (name for name in joinable_operands(graph, node) if name not in own)


def joinable_operands(graph: Graph, node: Node) -> Iterator[str]:
    """The operands of a concatenation that may share its codes."""
    for name in dict.fromkeys(node.inputs):
        source = graph.producer.get(name)
        dense = source is not None and source.op == "concat"
        if source is not None and source.op == "quantizer" and has_few_steps(source):
            continue
        if name in graph.values and (dense or graph.uses(name) == 1):
            yield name


def leaving_values(graph: Graph) -> frozenset[str]:
    """The values that nothing calculates with: they are only moved, joined, ranked or copied on their way out of the network."""
    found: set[str] = set()
    for name in reversed(list(graph.values)):
        readers = [node for node in graph.consumers[name] if node.op not in (*RANKS, "identity")]
        read = name in graph.outputs or bool(graph.consumers[name])
        if read and all(node.op in (*MOVES, "concat") and node.output.name in found for node in readers):
            found.add(name)
    return frozenset(found)
