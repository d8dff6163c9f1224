"""Fuses relu, relu6 and other clips into the layer that computes their operand, as its ``clamp``.

The limits of a quantizer are fused as well, but the quantizer stays: it says what codes the layer's result has.

Before:
    %c: f32[N,2,4,4] = conv2d(%x, %w, ...)  # conv
    %y: f32[N,2,4,4] = clip(%c, clamp=(0x0p+0, inf))  # relu
After:
    %y: f32[N,2,4,4] = conv2d(%x, %w, clamp=(0x0p+0, inf), ...)  # conv
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from qcompiler.ir.graph import Graph, Node, Stage

_CLAMPED = (
    "add",
    "average_pool2d",
    "clip",
    "conv2d",
    "conv3d",
    "conv_transpose2d",
    "function",
    "linear",
    "mul",
    "sub",
    "sum",
)


@dataclass(frozen=True)
class FuseActivations:
    """A clip of a clip is one clip; a layer that others read too is left alone."""

    name: str = "fuse_activations"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        nodes: dict[str, Node] = {}
        for node in graph.nodes:
            source = nodes.get(node.inputs[0]) if node.op in ("clip", "quantizer") else None
            if source is None or source.op not in _CLAMPED or graph.uses(node.inputs[0]) != 1:
                nodes[node.output.name] = node
                continue
            low, high = node["clamp"]
            inner_low, inner_high = source.get("clamp", (float("-inf"), float("inf")))
            clamp = (min(max(inner_low, low), high), max(min(inner_high, high), low))
            fused = source.with_attributes(clamp=clamp)
            if node.op == "quantizer":
                nodes[source.output.name] = fused
                nodes[node.output.name] = node
            else:
                del nodes[source.output.name]
                nodes[node.output.name] = replace(fused, outputs=node.outputs)
        return graph.with_nodes(nodes.values())
