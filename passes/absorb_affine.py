"""Puts an affine map of a convolution's input, such as the normalization of pixels, into the convolution's weights.

``conv(x * f + o)`` is ``conv'(x)`` with weights ``w * f`` and bias ``b + sum(w * o)``, but at the border: padding is 0 after the
map, so the map is only absorbed where it adds nothing or where the convolution has no padding.

Before:
    %n: f32[N,3,4,4] = conv2d(%x, %factors, %offsets, groups=3, ...)  # normalize
    %y: f32[N,8,2,2] = conv2d(%n, %w, %b, padding=(0, 0, 0, 0), ...)  # conv
After:
    %y: f32[N,8,2,2] = conv2d(%x, %y.weight, %y.bias, padding=(0, 0, 0, 0), ...)  # conv
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from qcompiler.ir.graph import Constant, Graph, Node, Stage
from qcompiler.ir.names import Constants


@dataclass(frozen=True)
class AbsorbAffine:
    """The map is a depthwise 1x1 convolution that nothing else reads."""

    name: str = "absorb_affine"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        constants = Constants(graph)
        nodes: dict[str, Node] = {}
        for node in graph.nodes:
            source = nodes.get(node.inputs[0]) if node.op == "conv2d" else None
            if source is not None and _is_affine(graph, source, constants) and _fits(node, source, constants):
                del nodes[source.output.name]
                node = _absorbed(node, source, constants)
            nodes[node.output.name] = node
        return graph.with_nodes(nodes.values(), constants.values())


def _is_affine(graph: Graph, node: Node, constants: Mapping[str, Constant]) -> bool:
    if node.op != "conv2d" or node.get("clamp") is not None or graph.uses(node.output.name) != 1:
        return False
    shape = constants[node.inputs[1]].data.shape if node.inputs[1] in constants else ()
    plain = node["strides"] == (1, 1) and not any(node["padding"])
    return shape == (node["groups"], 1, 1, 1) and plain


def _fits(node: Node, source: Node, constants: Mapping[str, Constant]) -> bool:
    offset = constants[source.inputs[2]].data if len(source.inputs) == 3 else np.zeros(1)
    fixed = all(name in constants for name in node.inputs[1:])
    return fixed and (not any(node["padding"]) or not offset.any())


def _absorbed(node: Node, source: Node, constants: Constants) -> Node:
    weight = constants[node.inputs[1]].data.astype(np.float64)
    bias = constants[node.inputs[2]].data.astype(np.float64) if len(node.inputs) == 3 else np.zeros(len(weight))
    factor = constants[source.inputs[1]].data.astype(np.float64).reshape(node["groups"], -1)
    offset = np.zeros(factor.size) if len(source.inputs) < 3 else constants[source.inputs[2]].data.astype(np.float64)
    grouped = weight.reshape(node["groups"], -1, *weight.shape[1:])  # [G, O/G, C/G, KH, KW]
    bias = bias + np.einsum("gockl,gc->go", grouped, offset.reshape(factor.shape)).ravel()
    constants.release(source)
    constants.release(node)
    scaled = constants.add(f"{node.output.name}.weight", (grouped * factor[:, None, :, None, None]).reshape(weight.shape))
    return replace(node, inputs=(source.inputs[0], scaled.name, constants.add(f"{node.output.name}.bias", bias).name))
