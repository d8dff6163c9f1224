"""Folds the addition of a constant into the bias of the layer before it.

A per-channel constant added to anything else becomes a depthwise 1x1 convolution, so that no addition with a constant is left.

Before:
    %m: f32[N,10] = linear(%x, %w)  # MatMul
    %y: f32[N,10] = add(%m, %b)  # Add
After:
    %y: f32[N,10] = linear(%x, %w, %y.bias)  # MatMul
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qcompiler.ir.graph import WEIGHTED, Array, Graph, Node, Stage, TensorType
from qcompiler.passes.fold_batch_norm import depthwise_affine, float_constant


def _per_channel(type_: TensorType, data: Array) -> Array | None:
    """``data`` as float64[channels] if adding it to a tensor of ``type_`` adds one number per channel."""
    axis = 1 if len(type_.shape) == 4 else len(type_.shape) - 1
    if data.ndim > len(type_.shape):
        return None
    full = data.reshape((1,) * (len(type_.shape) - data.ndim) + data.shape)
    if any(size != 1 for i, size in enumerate(full.shape) if i != axis):
        return None
    return np.broadcast_to(full.ravel(), (type_.with_batch(1)[axis],)).astype(np.float64)


@dataclass(frozen=True)
class FoldBias:
    """Only a producer that nothing else reads, with no activation, is changed."""

    name: str = "fold_bias"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        constants = dict(graph.constant)
        nodes: dict[str, Node] = {}
        for node in graph.nodes:
            fixed = [name for name in node.inputs if name in constants]
            if node.op != "add" or len(fixed) != 1:
                nodes[node.output.name] = node
                continue
            (variable,) = (name for name in node.inputs if name not in constants)
            offset = _per_channel(graph.type_of(variable), constants[fixed[0]].data)
            if offset is None or graph.type_of(variable) != node.output.type:
                nodes[node.output.name] = node
                continue
            source = nodes.get(variable)
            if source is not None and source.op in WEIGHTED and not source.get("clamp") and graph.uses(variable) == 1:
                old = constants[source.inputs[2]].data.astype(np.float64) if len(source.inputs) == 3 else 0.0
                bias = float_constant(f"{node.output.name}.bias", old + offset)
                constants[bias.name] = bias
                del nodes[variable]
                inputs = (*source.inputs[:2], bias.name)
                merged = replace(source, inputs=inputs, outputs=node.outputs)
                nodes[node.output.name] = merged.with_attributes(clamp=node.get("clamp"))
            else:
                added, made = depthwise_affine(node, graph.values[variable], np.ones_like(offset), offset)
                constants.update((c.name, c) for c in made)
                nodes.update((n.output.name, n) for n in added)
        return graph.with_nodes(nodes.values(), constants.values())
