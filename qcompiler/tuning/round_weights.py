"""The pass that chooses weight codes, and with them scales and biases, of an allocated graph.

Rounding every weight to its nearest code is the worst of the simple ways below 8 bits; how much better it is to be is what
``quality`` says:

- "fast": nearest codes of the scales with the least squared error (``passes.weight_codes``), corrected biases;
- "good": where a weight has fewer than 8 bits, all of them in closed form, layer by layer, on calibration samples
  (``tuning.gptq``). Networks of 8 bits alone gain little by it (ResNet-8: 2 dB, 0.03 points), and not what it takes;
- "best": on top of that, roundings, biases and steps are learned block by block (``tuning.reconstruct``), which takes minutes.

Before:
    const %w: f32[4,4] bits=4 = ...
    %y: f32[N,4] range=(-0x1p+0, 0x1p+0) bits=8 = linear(%x, %w)  # fc
After, with weights on their codes' grid:
    const %w: f32[4,4] bits=4 scale=[...] = ...
    const %y.bias: f32[4] = ...
    %y: f32[N,4] range=(-0x1p+0, 0x1p+0) bits=8 = linear(%x, %w, %y.bias, bias_corrected=1)  # fc
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from qcompiler.calibrate import FirstSamples
from qcompiler.ir.graph import WEIGHTED, Graph, Stage
from qcompiler.ops.quantizer import is_quantized
from qcompiler.progress import Progress

QUALITIES: Final = ("fast", "good", "best")
LIVE_BYTES: Final = 1 << 29
"""Of float values that are alive at once while weights are rounded: what limits the number of samples."""


@dataclass(frozen=True)
class RoundWeights:
    """``samples``: those that calibration kept; where it was skipped, the first of ``data``. Without any, nothing changes."""

    quality: str
    samples: FirstSamples
    data: Any = None
    progress: Progress | None = None
    name: str = "round_weights"
    requires: Stage = Stage.ALLOCATED
    gives: Stage = Stage.ALLOCATED

    def __call__(self, graph: Graph) -> Graph:
        layers = [node for node in graph.nodes if node.op in WEIGHTED]
        constant = all(name in graph.constant for node in layers for name in node.inputs[1:])
        done = any(node.get("bias_corrected") for node in layers)
        nearest = self.quality == "fast" or is_quantized(graph)  # codes that a quantized model has already
        if nearest or not constant or done or all(graph.constant[n.inputs[1]].bits == 8 for n in layers):
            return graph
        self.samples.fill(graph, self.data)
        if not self.samples.inputs:
            return graph
        from qcompiler.tuning.closed_form import round_in_order, samples_within
        from qcompiler.tuning.simulation import SimulatedGraph

        inputs = self.samples.first(samples_within(graph, LIVE_BYTES))
        simulated = SimulatedGraph(graph)
        round_in_order(simulated, inputs, self.progress)
        if self.quality == "best":
            from qcompiler.tuning.reconstruct import Reconstruction

            Reconstruction()(simulated, inputs, self.progress)
        return simulated.to_graph()
