"""Gives the values around the quantizers of a quantized model the ranges that follow from them; calibration keeps these.

Before:
    %c: f32[N,2,4,4] = conv2d(%x, %w, clamp=(-0x1p+0, 0x1.fcp-1), ...)  # conv
    %y: f32[N,2,4,4] = quantizer(%c, clamp=(-0x1p+0, 0x1.fcp-1), step=0x1p-7)  # conv.quantizer
After:
    %c: f32[N,2,4,4] range=(-0x1p+0, 0x1.fcp-1) range4=(-0x1p+0, 0x1.fcp-1) = conv2d(%x, %w, clamp=(-0x1p+0, 0x1.fcp-1), ...)
    %y: f32[N,2,4,4] range=(-0x1p+0, 0x1.fcp-1) range4=(-0x1p+0, 0x1.fcp-1) = quantizer(%c, ...)  # conv.quantizer
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from qcompiler.ir.graph import Graph, Stage, Value
from qcompiler.passes.quantizers import given_ranges


@dataclass(frozen=True)
class TakeRanges:
    """Runs last before calibration: passes before it make new values."""

    name: str = "take_ranges"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        wide, narrow = given_ranges(graph, 8), given_ranges(graph, 4)

        def given(value: Value) -> Value:
            return replace(value, range=wide[value.name], range4=narrow[value.name]) if value.name in wide else value

        nodes = tuple(replace(node, outputs=tuple(map(given, node.outputs))) for node in graph.nodes)
        return replace(graph, inputs=tuple(map(given, graph.inputs)), nodes=nodes)
