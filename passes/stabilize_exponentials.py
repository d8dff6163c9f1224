"""Takes the maximum out of the logarithm of a sum or mean of exponentials, whose codes would hold only the largest of them.

Before:
    %y.exp: f32[N,8] = function(%x, expression="exp(x)")  # lse
    %y.sum: f32[N] = sum(%y.exp, axes=(1,), keepdims=0)  # lse
    %y: f32[N] = function(%y.sum, expression="log(x)")  # lse
After:
    %y.largest: f32[N,1] = amax(%x, axes=(1,), keepdims=1)  # lse
    %y.below: f32[N,8] = sub(%x, %y.largest)  # lse
    %y.exponentials: f32[N,8] = function(%y.below, expression="exp(x)")  # lse
    %y.total: f32[N] = sum(%y.exponentials, axes=(1,), keepdims=0)  # lse
    %y.above: f32[N] = function(%y.total, expression="log(x)")  # lse
    %y.base: f32[N] = reshape(%y.largest, shape=("N",))  # lse
    %y: f32[N] = add(%y.base, %y.above)  # lse
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from qcompiler.ir.graph import Graph, Node, Stage, TensorType, Value
from qcompiler.ir.names import Names


@dataclass(frozen=True)
class StabilizeExponentials:
    """``log(sum(exp(x)))`` becomes ``max(x) + log(sum(exp(x - max(x))))``."""

    name: str = "stabilize_exponentials"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        names = Names.of(graph)
        nodes = tuple(new for node in graph.nodes for new in _stable(graph, node, names))
        return graph if nodes == graph.nodes else graph.with_nodes(_read(nodes, graph.outputs))


def _stable(graph: Graph, node: Node, names: Names) -> Iterator[Node]:
    total = _source(graph, node) if node.get("expression") == "log(x)" else None
    exponentials = _source(graph, total) if total is not None and total.op in ("sum", "mean") else None
    if total is None or exponentials is None or exponentials.get("expression") != "exp(x)" or _is_stable(graph, exponentials):
        yield node
        return
    x = exponentials.inputs[0]
    whole, result = graph.type_of(x), node.output.type
    shape = tuple(1 if axis in total["axes"] else size for axis, size in enumerate(whole.shape))

    def value(what: str, type_: TensorType) -> Value:
        return Value(names.fresh(f"{node.output.name}.{what}"), type_)

    largest, below = value("largest", replace(whole, shape=shape)), value("below", whole)
    powers, summed, above = value("exponentials", whole), value("total", result), value("above", result)
    yield Node("amax", (x,), (largest,), (("axes", total["axes"]), ("keepdims", 1)), node.origin)
    yield Node("sub", (x, largest.name), (below,), (), node.origin)
    yield replace(exponentials, inputs=(below.name,), outputs=(powers,))
    yield replace(total, inputs=(powers.name,), outputs=(summed,))
    yield replace(node, inputs=(summed.name,), outputs=(above,))
    base = largest
    if shape != result.shape:
        base = value("base", result)
        yield Node("reshape", (largest.name,), (base,), (("shape", result.shape),), node.origin)
    yield Node("add", (base.name, above.name), node.outputs, (), node.origin)


def _is_stable(graph: Graph, exponentials: Node) -> bool:
    """Whether the maximum is out already."""
    below = _source(graph, exponentials)
    largest = graph.producer.get(below.inputs[1]) if below is not None and below.op == "sub" else None
    return largest is not None and largest.op == "amax"


def _read(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    """The nodes that the outputs still need."""
    needed, kept = set(outputs), list[Node]()
    for node in reversed(nodes):
        if any(y.name in needed for y in node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _source(graph: Graph, node: Node) -> Node | None:
    """What computes the operand of ``node``."""
    return graph.producer.get(node.inputs[0])
