"""Folds zero padding of height and width into the convolution that reads it.

Before:
    %p: f32[N,3,7,7] = pad(%x, after=(0, 0, 2, 2), before=(0, 0, 1, 1), value=0x0p+0)
    %y: f32[N,8,3,3] = conv2d(%p, %w, padding=(0, 0, 0, 0), strides=(2, 2), ...)
After:
    %y: f32[N,8,3,3] = conv2d(%x, %w, padding=(1, 1, 2, 2), strides=(2, 2), ...)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from qcompiler.ir.graph import Graph, Node, Stage


@dataclass(frozen=True)
class FoldPad:
    """A pad whose every reader is a convolution disappears; otherwise it stays for the others."""

    name: str = "fold_pad"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        nodes = [self._folded(graph, node) for node in graph.nodes]
        read = {name for node in nodes for name in node.inputs} | set(graph.outputs)
        return graph.with_nodes(n for n in nodes if n.op != "pad" or n.output.name in read)

    @staticmethod
    def _folded(graph: Graph, node: Node) -> Node:
        pad = graph.producer.get(node.inputs[0]) if node.op == "conv2d" else None
        if pad is None or pad.op != "pad" or pad["value"] != 0.0 or any(pad["before"][:-2]) or any(pad["after"][:-2]):
            return node
        amounts = (*pad["before"][-2:], *pad["after"][-2:])
        padding = tuple(a + b for a, b in zip(node["padding"], amounts, strict=True))
        return replace(node, inputs=(pad.inputs[0], *node.inputs[1:])).with_attributes(padding=padding)
