"""Corrects biases for what rounding the weights does to the mean of a layer's output.

Rounded weights shift every output channel by the mean of ``conv(x, rounded - weight)`` over calibration samples; the bias takes
that back (Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction", arXiv 1906.04721). A
convolution is linear, so the mean over samples is the convolution of the mean image, borders included.

Before:
    const %w: f32[1,2] bits=4 = [0x1p+0, 0x1.cp+2]
    %y: f32[N,1] ... = linear(%x, %w)  # fc
After:
    const %w: f32[1,2] bits=4 = [0x1p+0, 0x1.cp+2]
    const %y.bias: f32[1] = [-0x1p-3]
    %y: f32[N,1] ... = linear(%x, %w, %y.bias, bias_corrected=1)  # fc
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qcompiler.calibrate import BATCH_SIZE, FirstSamples, batches
from qcompiler.interpret import run_float
from qcompiler.ir.graph import WEIGHTED, Array, Graph, Node, Stage, Value, float_constant
from qcompiler.ops.table import OPERATORS
from qcompiler.passes.weight_codes import rounded_weights

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CorrectBias:
    """``samples``: those that calibration kept; where it was skipped, the first of ``data``. Without any, nothing changes."""

    samples: FirstSamples
    data: Any = None
    name: str = "correct_bias"
    requires: Stage = Stage.ALLOCATED
    gives: Stage = Stage.ALLOCATED

    def __call__(self, graph: Graph) -> Graph:
        if not self.samples.inputs and self.data is not None:
            self.samples.collect(batches(graph, self.data))
        if not self.samples.inputs:
            return graph
        means = mean_operands(graph, self.samples.inputs)
        constants = dict(graph.constant)
        nodes: list[Node] = []
        for node in graph.nodes:
            if node.op in WEIGHTED and not node.get("bias_corrected") and node.inputs[1] in constants:
                shift = rounding_shift(graph, node, means[node.inputs[0]])
                old = constants[node.inputs[2]].data if len(node.inputs) == 3 else 0.0
                bias = float_constant(f"{node.output.name}.bias", old - shift)
                constants[bias.name] = bias
                node = replace(node, inputs=(*node.inputs[:2], bias.name)).with_attributes(bias_corrected=1)
            nodes.append(node)
        return graph.with_nodes(nodes, constants.values())


def mean_operands(graph: Graph, samples: list[Array]) -> Mapping[str, torch.Tensor]:
    """The mean over ``samples`` of every value that a layer with weights reads, ``[1, ...]`` each."""
    import torch

    read = {node.inputs[0] for node in graph.nodes if node.op in WEIGHTED}
    sums: dict[str, torch.Tensor] = {}

    def observe(value: Value, tensor: torch.Tensor) -> None:
        if value.name in read:
            total = tensor.sum(dim=0, keepdim=True, dtype=torch.float64)
            sums[value.name] = sums[value.name] + total if value.name in sums else total

    with torch.no_grad():
        for start in range(0, len(samples[0]), BATCH_SIZE):
            run_float(graph, [torch.from_numpy(x[start : start + BATCH_SIZE]) for x in samples], observe)
    return {name: (total / len(samples[0])).to(torch.float32) for name, total in sums.items()}


def rounding_shift(graph: Graph, node: Node, mean: torch.Tensor) -> Array:
    """Per output channel, how much rounding the weights of ``node`` raises the mean of its output, float64[O]."""
    import torch

    weight = graph.constant[node.inputs[1]]
    error = torch.from_numpy((rounded_weights(weight.data, weight.bits or 8) - weight.data).astype(np.float32))
    plain = node.with_attributes(clamp=None)
    with torch.no_grad():
        shift = OPERATORS[node.op].run_float(plain, [mean, error]).to(torch.float64)
    channels: Array = shift.mean(dim=[axis for axis in range(shift.ndim) if axis != 1]).numpy()
    return channels
