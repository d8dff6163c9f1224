"""Folds batch normalization into the convolution or linear layer before it.

``y = (conv(x) - mean) * g + beta`` with ``g = gamma / sqrt(variance + epsilon)`` is a convolution with weights ``w * g`` and
bias ``(b - mean) * g + beta``, computed in float64. A batch norm with nothing to fold into becomes a depthwise 1x1
convolution of its own.

Before:
    %c: f32[N,2,4,4] = conv2d(%x, %w, ...)  # conv
    %y: f32[N,2,4,4] = batch_norm(%c, %gamma, %beta, %mean, %variance, epsilon=0x1.4p-17)  # bn
After:
    %y: f32[N,2,4,4] = conv2d(%x, %y.weight, %y.bias, ...)  # conv
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qcompiler.ir.dtypes import F32
from qcompiler.ir.graph import WEIGHTED, Array, Constant, Graph, Node, Stage, TensorType, Value


def float_constant(name: str, data: Array) -> Constant:
    """A float32 constant."""
    return Constant(name, TensorType(F32, tuple(data.shape)), np.ascontiguousarray(data, dtype=np.float32))


def depthwise_affine(node: Node, x: Value, factor: Array, offset: Array) -> tuple[list[Node], list[Constant]]:
    """Nodes and constants that compute ``x * factor[c] + offset[c]`` into ``node``'s output, for rank 2 or 4."""
    name, channels = node.output.name, len(factor)
    weight = float_constant(f"{name}.weight", factor.reshape(channels, 1, 1, 1))
    bias = float_constant(f"{name}.bias", offset)
    attributes = (("dilation", (1, 1)), ("groups", channels), ("padding", (0, 0, 0, 0)), ("strides", (1, 1)))
    if len(x.type.shape) == 4:
        return [Node("conv2d", (x.name, weight.name, bias.name), (node.output,), attributes, node.origin)], [weight, bias]
    batch = x.type.shape[0]
    image = TensorType(F32, (batch, channels, 1, 1))
    nodes = [
        Node("reshape", (x.name,), (Value(f"{name}.image", image),), (("shape", image.shape),), node.origin),
        Node("conv2d", (f"{name}.image", weight.name, bias.name), (Value(f"{name}.affine", image),), attributes, node.origin),
        Node("reshape", (f"{name}.affine",), (node.output,), (("shape", node.output.type.shape),), node.origin),
    ]
    return nodes, [weight, bias]


@dataclass(frozen=True)
class FoldBatchNorm:
    """Only a producer that nothing else reads is changed."""

    name: str = "fold_batch_norm"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        constants = dict(graph.constant)
        nodes: dict[str, Node] = {}  # by the name of the output, in definition order
        for node in graph.nodes:
            if node.op != "batch_norm" or not all(name in constants for name in node.inputs[1:]):
                nodes[node.output.name] = node
                continue
            gamma, beta, mean, variance = (constants[name].data.astype(np.float64) for name in node.inputs[1:])
            factor = gamma / np.sqrt(variance + node["epsilon"])
            source = nodes.get(node.inputs[0])
            foldable = (
                source is not None
                and source.op in WEIGHTED
                and source.get("clamp") is None
                and graph.uses(node.inputs[0]) == 1
                and all(name in constants for name in source.inputs[1:])
            )
            if source is None or not foldable:
                x = graph.values[node.inputs[0]]
                added, made = depthwise_affine(node, x, factor, beta - mean * factor)
                nodes.update((n.output.name, n) for n in added)
            else:
                weight = constants[source.inputs[1]].data.astype(np.float64)
                bias = constants[source.inputs[2]].data.astype(np.float64) if len(source.inputs) == 3 else 0.0
                name = node.output.name
                made = [
                    float_constant(f"{name}.weight", weight * factor.reshape(-1, *[1] * (weight.ndim - 1))),
                    float_constant(f"{name}.bias", (bias - mean) * factor + beta),
                ]
                del nodes[source.output.name]
                inputs = (source.inputs[0], made[0].name, made[1].name)
                nodes[name] = replace(source, inputs=inputs, outputs=node.outputs)
            constants.update((c.name, c) for c in made)
        return graph.with_nodes(nodes.values(), constants.values())
