"""Slices of a concatenation that lie within one of its parts are taken from that part.

Assignments to slices (``y[..., :2] = ...``) arrive as concatenations whose parts are sliced again. What is read of the whole has
the whole's codes, which may be far coarser than the part's.

Before:
    %y: f32[N,8] = concat(%boxes, %scores, axis=1)
    %s: f32[N,2] = slice(%y, axes=(1,), starts=(3,), steps=(1,), stops=(5,))
After, with %boxes of two elements:
    %s: f32[N,2] = slice(%scores, axes=(1,), starts=(1,), steps=(1,), stops=(3,))
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from qcompiler.ir.graph import Graph, Node, Stage, rename_inputs


@dataclass(frozen=True)
class ForwardSlices:
    """A slice that is the whole part gives way to the part; concatenations that nothing reads any more disappear."""

    name: str = "forward_slices"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        renames: dict[str, str] = {}
        nodes: dict[str, Node] = {}
        forwarded: set[str] = set()
        for node in graph.nodes:
            node = rename_inputs(node, renames)
            while (closer := _forwarded(graph, node, nodes.get(node.inputs[0]))) is not None:
                forwarded.add(node.inputs[0])
                node = closer
            if node.op == "slice" and node.output.type == graph.type_of(node.inputs[0]) and min(node["steps"]) > 0:
                renames[node.output.name] = node.inputs[0]
            else:
                nodes[node.output.name] = node
        outputs = [renames.get(name, name) for name in graph.outputs]
        for name in reversed(list(nodes)):
            if name in forwarded and name not in outputs and all(name not in node.inputs for node in nodes.values()):
                del nodes[name]
        return graph.with_nodes(nodes.values(), outputs=outputs)


def _forwarded(graph: Graph, node: Node, source: Node | None) -> Node | None:
    """The slice ``node`` of the concatenation ``source`` as one of a part; None where it is no such thing."""
    if node.op != "slice" or source is None or source.op != "concat" or source["axis"] not in node["axes"]:
        return None
    place, axis, offset = node["axes"].index(source["axis"]), source["axis"], 0
    chosen = range(node["starts"][place], node["stops"][place], node["steps"][place])
    for part in source.inputs:
        size = graph.type_of(part).shape[axis]
        assert isinstance(size, int)
        if part in graph.values and offset <= min(chosen) and max(chosen) < offset + size:
            starts, stops = list(node["starts"]), list(node["stops"])
            starts[place], stops[place] = chosen[0] - offset, chosen[-1] - offset + (1 if chosen.step > 0 else -1)
            return replace(node, inputs=(part,)).with_attributes(starts=tuple(starts), stops=tuple(stops))
        offset += size
    return None
