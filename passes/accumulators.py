"""Analysis: which additions take the sums of a layer before they are rounded, and so round once."""

from __future__ import annotations

from qcompiler.ir.graph import WEIGHTED, Graph, Node


def fused_accumulators(graph: Graph) -> dict[str, str]:
    """The results of layers that stay accumulators, with the result of the addition that alone reads them."""
    order = {name: index for index, name in enumerate(graph.values)}
    found: dict[str, str] = {}
    for node in graph.nodes:
        fit = [name for name in node.inputs if _fits(graph, node, name)]
        if fit:
            found[max(fit, key=order.__getitem__)] = node.output.name  # the one computed last
    return found


def _fits(graph: Graph, addition: Node, name: str) -> bool:
    source = graph.producer.get(name)
    return (
        addition.op == "add"
        and len(set(addition.inputs)) == 2
        and all(i in graph.values and graph.type_of(i) == addition.output.type for i in addition.inputs)
        and source is not None
        and source.op in WEIGHTED
        and source.get("clamp") is None
        and graph.uses(name) == 1
    )
