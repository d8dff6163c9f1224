"""Corrects biases for what quantizing does to the mean of a layer's output.

In order, each layer runs over calibration samples twice: in float, and with rounded weights on the codes that the layers before
it give, whose biases are corrected already; its bias takes back the mean difference, channel by channel (Nagel et al.,
"Data-Free Quantization through Weight Equalization and Bias Correction", arXiv 1906.04721, section 4.2 and appendix D: empirical
bias correction). Where a quantized model rounds, the float run rounds too: that is what the model computes. Two things differ
from there. Where a layer ends in a clamp, only places count at which one of the two is inside of it: what a ReLU sets to zero
needs no correction. And a mean that is hardly larger than its own error is shrunk towards zero (the positive-part rule of James
and Stein, 1961, with as many observations as there are samples in which the channel is active).

Before:
    const %w: f32[1,2] bits=4 = [0x1p+0, 0x1.cp+2]
    %y: f32[N,1] ... = linear(%x, %w)  # fc
After:
    const %w: f32[1,2] bits=4 = [0x1p+0, 0x1.cp+2]
    const %y.bias: f32[1] = [-0x1p-3]
    %y: f32[N,1] ... = linear(%x, %w, %y.bias, bias_corrected=1)  # fc
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qcompiler.calibrate import FirstSamples
from qcompiler.interpret import last_reads
from qcompiler.ir.graph import WEIGHTED, Array, Graph, Node, Stage
from qcompiler.ir.names import Constants
from qcompiler.ops.table import OPERATORS
from qcompiler.passes.activation_codes import WIDE_BITS, Codes, choose_codes
from qcompiler.passes.weight_codes import rounded_weights

if TYPE_CHECKING:
    import torch

SAMPLES: Final = 32  # at most; all their values that are still read are in memory
CHUNK: Final = 8  # samples that one operator works on at once


@dataclass(frozen=True)
class CorrectBias:
    """``samples``: those that calibration kept; where it was skipped, the first of ``data``. Without any, nothing changes."""

    samples: FirstSamples
    data: Any = None
    name: str = "correct_bias"
    requires: Stage = Stage.ALLOCATED
    gives: Stage = Stage.ALLOCATED

    def __call__(self, graph: Graph) -> Graph:
        import torch

        wanted = [node for node in graph.nodes if _correctable(graph, node)]
        if wanted:
            self.samples.fill(graph, self.data)
        if not wanted or not self.samples.inputs:
            return graph
        with torch.no_grad():
            return _Correction(graph).run(self.samples.first(SAMPLES))


def _correctable(graph: Graph, node: Node) -> bool:
    return node.op in WEIGHTED and not node.get("bias_corrected") and all(name in graph.constant for name in node.inputs[1:])


@dataclass
class _Correction:
    """Both runs, operator by operator over all samples: ``exact`` and ``rounded`` hold the values that are still read."""

    graph: Graph
    exact: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    rounded: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    fixed: dict[str, torch.Tensor] = field(default_factory=dict)
    chunks: int = 0

    def run(self, samples: list[Array]) -> Graph:
        import torch

        graph = self.graph
        codes = {name: found for name, found in choose_codes(graph, WIDE_BITS).items() if found.dtype.bits < WIDE_BITS}
        constants, nodes = Constants(graph), []
        self.fixed = {c.name: torch.from_numpy(c.data.copy()) for c in graph.constants}
        for value, x in zip(graph.inputs, samples, strict=True):
            self.exact[value.name] = [torch.from_numpy(x[start : start + CHUNK]) for start in range(0, len(x), CHUNK)]
            self.rounded[value.name] = list(self.exact[value.name])
            _round(self.rounded[value.name], codes.get(value.name))
            self.chunks = len(self.exact[value.name])
        last = last_reads(graph)
        for index, node in enumerate(graph.nodes):
            name = node.output.name
            spent = {read for read in node.inputs if read in self.exact and last.get(read, index) <= index}
            if node.op in WEIGHTED and node.inputs[1] in constants:
                node = self._layer(node, constants, spent)
            else:
                self.exact[name] = self._outputs(node, self.exact, spent)
                self.rounded[name] = self._outputs(node, self.rounded, spent)
            if node.op == "quantizer":
                _round(self.exact[name], codes.get(name))  # the model itself rounds here
            if not stays_accumulator(graph, node):
                _round(self.rounded[name], codes.get(name))
            nodes.append(node)
        return graph.with_nodes(nodes, constants.values())

    def _outputs(self, node: Node, run: dict[str, list[torch.Tensor]], spent: set[str]) -> list[torch.Tensor]:
        """Of all samples; inputs that are ``spent`` give way part by part, as they are most of what a compilation keeps."""
        import torch

        values = {name: run.pop(name) if name in spent else run[name] for name in set(node.inputs) if name in run}
        parts = []
        for place in range(self.chunks):
            inputs = [values[name][place] if name in values else self.fixed[name] for name in node.inputs]
            parts.append(OPERATORS[node.op].run_float(node, inputs))
            del inputs
            for name in spent:
                values[name][place] = torch.empty(0)
        return parts

    def _layer(self, node: Node, constants: Constants, spent: set[str]) -> Node:
        """Run a layer both ways; give it the corrected bias unless it has one."""
        import torch

        weight, name = self.graph.constant[node.inputs[1]], node.output.name
        rounded = torch.from_numpy(rounded_weights(weight.data, weight.bits or 8, weight.scale).astype(np.float32))
        plain = node.with_attributes(clamp=None)
        self.exact[name] = self._outputs(plain, self.exact, spent)
        kept = self.fixed[node.inputs[1]]
        self.fixed[node.inputs[1]] = rounded
        self.rounded[name] = self._outputs(plain, self.rounded, spent)
        self.fixed[node.inputs[1]] = kept
        clamp = node.get("clamp")
        if _correctable(self.graph, node):
            shift = mean_difference(self.exact[name], self.rounded[name], clamp)
            old = constants[node.inputs[2]].data if len(node.inputs) == 3 else 0.0
            constants.release(node, keeping=node.inputs[:2])
            bias = constants.add(f"{name}.bias", old + shift)
            node = replace(node, inputs=(*node.inputs[:2], bias.name)).with_attributes(bias_corrected=1)
            for part in self.rounded[name]:
                part += torch.from_numpy(shift).to(torch.float32).reshape(-1, *[1] * (part.ndim - 2))
        if clamp is not None:
            for part in (*self.exact[name], *self.rounded[name]):
                part.clamp_(*clamp)
        return node


def stays_accumulator(graph: Graph, node: Node) -> bool:
    """Whether an addition may take the layer's sums before they are rounded."""
    readers = graph.consumers[node.output.name]
    alone = graph.uses(node.output.name) == 1 and len(readers) == 1
    return node.op in WEIGHTED and node.get("clamp") is None and alone and readers[0].op == "add"


def mean_difference(exact: Iterable[torch.Tensor], rounded: Iterable[torch.Tensor], clamp: tuple[float, float] | None) -> Array:
    """The shrunk mean of ``exact - rounded`` for each channel, float64[C], where one of them is inside of ``clamp``."""
    import torch

    sums = None
    for a, b in zip(exact, rounded, strict=True):
        difference = a - b
        others = [axis for axis in range(a.ndim) if axis != 1]
        inside = torch.ones((), dtype=torch.float32).expand_as(a)
        if clamp is not None:
            inside = ((torch.maximum(a, b) > clamp[0]) & (torch.minimum(a, b) < clamp[1])).to(torch.float32)
            difference *= inside
        active = inside.amax(others[1:]).sum(0) if others[1:] else inside.sum(0)
        found = torch.stack([inside.sum(others), active, difference.sum(others), (difference**2).sum(others)]).to(torch.float64)
        sums = found if sums is None else sums + found
    assert sums is not None
    places, active, total, squares = sums
    mean = total / places.clamp(min=1.0)
    error = (squares / places.clamp(min=1.0) - mean**2).clamp(min=0.0) / active.clamp(min=1.0)
    shrunk: Array = (mean * (1.0 - error / (mean**2).clamp(min=1e-30)).clamp(min=0.0)).numpy()
    return shrunk


def _round(parts: list[torch.Tensor], codes: Codes | None) -> None:
    """Each part gives way to what it is in codes: all values once more would be the most memory that a compilation needs."""
    for place, part in enumerate(parts):
        parts[place] = part if codes is None else codes.rounded(part)
