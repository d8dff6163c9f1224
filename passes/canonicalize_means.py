"""Turns the mean over height and width into global average pooling, and any other mean into a sum with a factor.

Before:
    %y: f32[N,8] = mean(%x, axes=(2, 3), keepdims=0)  # avgpool
After:
    %y.pooled: f32[N,8,1,1] = average_pool2d(%x, kernel=(4, 4), strides=(1, 1), padding=(0, 0, 0, 0))  # avgpool
    %y: f32[N,8] = reshape(%y.pooled, shape=("N", 8))  # avgpool
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from qcompiler.ir.graph import Graph, Node, Stage, TensorType, Value
from qcompiler.ir.names import Names


@dataclass(frozen=True)
class CanonicalizeMeans:
    """Means over one spatial axis become pooling along it."""

    name: str = "canonicalize_means"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        names = Names.of(graph)
        return graph.with_nodes(new for node in graph.nodes for new in self._canonical(graph, node, names))

    @staticmethod
    def _canonical(graph: Graph, node: Node, names: Names) -> list[Node]:
        if node.op != "mean":
            return [node]
        x = graph.type_of(node.inputs[0])
        sizes = x.with_batch(1)
        if len(x.shape) != 4 or not set(node["axes"]) <= {2, 3}:
            count = prod(sizes[axis] for axis in node["axes"])
            return [replace(node.with_attributes(factor=1.0 / count), op="sum")]
        kernel = (sizes[2] if 2 in node["axes"] else 1, sizes[3] if 3 in node["axes"] else 1)
        shape = (*x.shape[:2], sizes[2] // kernel[0], sizes[3] // kernel[1])
        attributes = (("kernel", kernel), ("padding", (0, 0, 0, 0)), ("strides", (1, 1)))
        if node["keepdims"]:
            return [Node("average_pool2d", node.inputs, node.outputs, attributes, node.origin)]
        pooled = Value(names.fresh(f"{node.output.name}.pooled"), TensorType(x.dtype, shape))
        pooling = Node("average_pool2d", node.inputs, (pooled,), attributes, node.origin)
        reshape = Node("reshape", (pooled.name,), node.outputs, (("shape", node.output.type.shape),), node.origin)
        return [pooling, reshape]
