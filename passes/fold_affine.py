"""Folds what is ``x * factor[c] + offset[c]`` into the layer before it: batch normalization, sums and products with constants.

With ``g = gamma / sqrt(variance + epsilon)`` batch normalization is ``x * g + (beta - mean * g)``; a convolution followed by an
affine map is a convolution, computed in float64. Where there is nothing to fold into, the map becomes a depthwise 1x1
convolution of its own, so that constants with one number per channel are always weights. A constant that varies along other
axes stays an operand.

Before:
    %c: f32[N,2,4,4] = conv2d(%x, %w, ...)  # conv
    %y: f32[N,2,4,4] = batch_norm(%c, %gamma, %beta, %mean, %variance, epsilon=0x1.4p-17)  # bn
After:
    %y: f32[N,2,4,4] = conv2d(%x, %y.weight, %y.bias, ...)  # conv
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from qcompiler.ir.dtypes import F32
from qcompiler.ir.graph import Array, Constant, Graph, Node, Stage, TensorType, Value
from qcompiler.ir.names import Constants

_LAYERS = ("conv2d", "conv3d", "conv_transpose2d", "linear")


@dataclass(frozen=True)
class _Affine:
    """``x * factor + offset``, float64 scalars or vectors along ``axis`` (None where both are one number)."""

    x: str
    factor: Array
    offset: Array
    axis: int | None

    def along(self, channels: int) -> tuple[Array, Array]:
        """Factor and offset of every channel."""
        return np.broadcast_to(self.factor, channels), np.broadcast_to(self.offset, channels)


@dataclass(frozen=True)
class FoldAffine:
    """Only a layer that nothing else reads, with no activation, is changed."""

    name: str = "fold_affine"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        constants = Constants(graph)
        nodes: dict[str, Node] = {}  # by the name of the output, in definition order
        for node in graph.nodes:
            affine = _affine(graph, node, constants)
            layer = nodes.get(affine.x) if affine is not None and graph.uses(affine.x) == 1 else None
            added: list[Node] = [node]
            if affine is not None and layer is not None and _foldable(graph, layer, affine, constants):
                added = [_folded(node, layer, affine, constants)]
                del nodes[affine.x]
            elif affine is not None and affine.axis in (None, 1):
                added = _depthwise(node, graph.values[affine.x], affine, constants)
            nodes.update((n.output.name, n) for n in added)
        return graph.with_nodes(nodes.values(), constants.values())


def _affine(graph: Graph, node: Node, constants: Mapping[str, Constant]) -> _Affine | None:
    """What ``node`` does to its only computed operand, if that is an affine map with at most one number per channel."""
    fixed = [name for name in node.inputs if name in constants]
    if node.op == "batch_norm" and len(fixed) == 4:
        gamma, beta, mean, variance = (constants[name].data.astype(np.float64) for name in fixed)
        factor = gamma / np.sqrt(variance + node["epsilon"])
        return _Affine(node.inputs[0], factor, beta - mean * factor, 1)
    if node.op not in ("add", "sub", "mul") or len(fixed) != 1:
        return None
    (x,) = (name for name in node.inputs if name in graph.values)
    type_, data = graph.type_of(x), constants[fixed[0]].data.astype(np.float64)
    if data.ndim > len(type_.shape) or type_ != node.output.type:
        return None
    full = data.reshape((1,) * (len(type_.shape) - data.ndim) + data.shape)
    varying = [axis for axis, size in enumerate(full.shape) if size != 1]
    if len(varying) > 1:
        return None
    one, zero, vector = np.float64(1.0), np.float64(0.0), full.ravel() if varying else full.ravel()[0]
    factor, offset = {
        "add": (one, vector),
        "mul": (vector, zero),
        "sub": (one, -vector) if node.inputs[0] == x else (-one, vector),
    }[node.op]
    return _Affine(x, np.asarray(factor), np.asarray(offset), varying[0] if varying else None)


def _foldable(graph: Graph, layer: Node, affine: _Affine, constants: Mapping[str, Constant]) -> bool:
    axis = len(graph.type_of(affine.x).shape) - 1 if layer.op == "linear" else 1
    fixed = all(name in constants for name in layer.inputs[1:])
    return layer.op in _LAYERS and layer.get("clamp") is None and fixed and affine.axis in (None, axis)


def _folded(node: Node, layer: Node, affine: _Affine, constants: Constants) -> Node:
    """``layer`` with the affine map in its weights and bias; a bias alone leaves the weights as they are."""
    weight = constants[layer.inputs[1]]
    channels = weight.type.with_batch(1)[1] * layer["groups"] if layer.op == "conv_transpose2d" else weight.type.with_batch(1)[0]
    factor, offset = affine.along(channels)
    old = constants[layer.inputs[2]].data.astype(np.float64) if len(layer.inputs) == 3 else 0.0
    scaled = not (factor == 1.0).all()
    constants.release(node)
    constants.release(layer, keeping=() if scaled else (weight.name,))
    name = node.output.name
    bias = constants.add(f"{name}.bias", old * factor + offset)
    if scaled:
        weight = constants.add(f"{name}.weight", _scaled_weight(layer, weight.data.astype(np.float64), factor))
    merged = replace(layer, inputs=(layer.inputs[0], weight.name, bias.name), outputs=node.outputs)
    return merged.with_attributes(clamp=node.get("clamp"))


def _scaled_weight(layer: Node, weight: Array, factor: Array) -> Array:
    if layer.op != "conv_transpose2d":
        scaled: Array = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        return scaled
    grouped = weight.reshape(layer["groups"], -1, *weight.shape[1:])
    result: Array = (grouped * factor.reshape(layer["groups"], 1, -1, 1, 1)).reshape(weight.shape)
    return result


def _depthwise(node: Node, x: Value, affine: _Affine, constants: Constants) -> list[Node]:
    """Nodes that compute the map into ``node``'s output, for any rank of at least 2."""
    name, shape = node.output.name, x.type.with_batch(1)
    channels = shape[1] if len(shape) > 1 else 1
    factor, offset = affine.along(channels)
    constants.release(node)
    weight = constants.add(f"{name}.weight", factor.reshape(channels, 1, 1, 1)).name
    bias = constants.add(f"{name}.bias", offset).name
    clamp = (("clamp", node["clamp"]),) if node.get("clamp") is not None else ()
    attributes = (("dilation", (1, 1)), ("groups", channels), ("padding", (0, 0, 0, 0)), ("strides", (1, 1)), *clamp)
    if len(shape) == 4:
        return [Node("conv2d", (x.name, weight, bias), (node.output,), attributes, node.origin)]
    type_ = TensorType(F32, (x.type.shape[0], channels, 1, prod(shape[2:])))
    image, mapped = (Value(constants.fresh(f"{name}.{part}"), type_) for part in ("image", "affine"))
    return [
        Node("reshape", (x.name,), (image,), (("shape", type_.shape),), node.origin),
        Node("conv2d", (image.name, weight, bias), (mapped,), attributes, node.origin),
        Node("reshape", (mapped.name,), (node.output,), (("shape", node.output.type.shape),), node.origin),
    ]
