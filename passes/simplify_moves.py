"""Brings moves of elements into a simple form: reshapes go behind what works channel by channel, and chains become one.

A one-dimensional layer is a two-dimensional one between two reshapes; batch normalization or an activation after the second
one must meet the layer itself to be folded into it. Reshapes of reshapes and transpositions of transpositions become one, or
none.

Before:
    %c: f32[N,8,1,9] = conv2d(%image, %w, ...)  # conv
    %r: f32[N,8,9] = reshape(%c, shape=("N", 8, 9))  # conv
    %y: f32[N,8,9] = clip(%r, clamp=(0x0p+0, inf))  # relu
After:
    %c: f32[N,8,1,9] = conv2d(%image, %w, ...)  # conv
    %y.before: f32[N,8,1,9] = clip(%c, clamp=(0x0p+0, inf))  # relu
    %y: f32[N,8,9] = reshape(%y.before, shape=("N", 8, 9))  # conv
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from qcompiler.ir.graph import Graph, Node, Stage, TensorType, Value, rename_inputs
from qcompiler.ir.names import Names

_ELEMENTWISE = ("clip", "function")
_BY_CHANNEL = ("batch_norm", "prelu")


@dataclass(frozen=True)
class SimplifyMoves:
    """Repeats until nothing changes: each step removes a node or moves a reshape further down."""

    name: str = "simplify_moves"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        while (simpler := _merged(_sunk(graph))) != graph:
            graph = simpler
        return graph


def _sunk(graph: Graph) -> Graph:
    """Every reshape that only an element-by-element operator reads moves behind it."""
    nodes: dict[str, Node] = {}
    names = Names.of(graph)
    for node in graph.nodes:
        reshape = nodes.get(node.inputs[0]) if node.op in (*_ELEMENTWISE, *_BY_CHANNEL) else None
        if reshape is None or reshape.op != "reshape" or graph.uses(reshape.output.name) != 1:
            nodes[node.output.name] = node
            continue
        before = nodes_type(graph, nodes, reshape.inputs[0])
        if node.op in _BY_CHANNEL and not _same_channels(before, reshape.output.type):
            nodes[node.output.name] = node
            continue
        del nodes[reshape.output.name]
        inner = Value(names.fresh(f"{node.output.name}.before"), TensorType(node.output.type.dtype, before.shape))
        nodes[inner.name] = replace(node, inputs=(reshape.inputs[0], *node.inputs[1:]), outputs=(inner,))
        nodes[node.output.name] = replace(reshape, inputs=(inner.name,), outputs=node.outputs)
    return graph.with_nodes(nodes.values())


def nodes_type(graph: Graph, nodes: dict[str, Node], name: str) -> TensorType:
    """The type of a value of ``graph`` or of a node that was made since."""
    return nodes[name].output.type if name in nodes else graph.type_of(name)


def _same_channels(a: TensorType, b: TensorType) -> bool:
    return len(a.shape) > 1 and len(b.shape) > 1 and a.shape[:2] == b.shape[:2]


def _merged(graph: Graph) -> Graph:
    """Chains of reshapes and of transpositions as one; those that do nothing disappear."""
    renames: dict[str, str] = {}
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        node = rename_inputs(node, renames)
        source = nodes.get(node.inputs[0]) if node.op in ("reshape", "transpose") else None
        if source is not None and source.op == node.op:
            if node.op == "transpose":
                node = node.with_attributes(order=tuple(source["order"][axis] for axis in node["order"]))
            node = replace(node, inputs=source.inputs)
        if _idle(node, nodes_type(graph, nodes, node.inputs[0]) if node.op in ("reshape", "transpose") else None):
            renames[node.output.name] = node.inputs[0]
            continue
        nodes[node.output.name] = node
    outputs = [renames.get(name, name) for name in graph.outputs]
    read = {name for node in nodes.values() for name in node.inputs} | set(outputs)
    live = [node for node in nodes.values() if node.op not in ("reshape", "transpose") or node.output.name in read]
    return graph.with_nodes(live, outputs=outputs)


def _idle(node: Node, x: TensorType | None) -> bool:
    if x is None:
        return False
    return node.output.type == x if node.op == "reshape" else node["order"] == tuple(range(len(x.shape)))
