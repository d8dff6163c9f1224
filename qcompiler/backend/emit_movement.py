"""Operators that only move codes."""

from __future__ import annotations

from dataclasses import replace

from qcompiler.backend.image import PHYSICAL, Image
from qcompiler.backend.kernel import CopySpec, Scalar
from qcompiler.backend.lowering import Lowering
from qcompiler.ir.graph import Node


def move(lowering: Lowering, node: Node) -> None:
    """Pad, slice and reshape; a reshape that leaves every byte in place costs nothing."""
    x = lowering.buffers[node.inputs[0]]
    source, result = lowering.images[x], lowering.image(node.output.type, node.origin)
    if node.op == "reshape" and source.layout == PHYSICAL and source.stored == result.stored and _one_row(source, result):
        lowering.buffers[node.output.name] = x
        return
    rank = len(source.shape)
    starts, steps, fill = [0] * rank, [1] * rank, 0
    if node.op == "slice":
        for axis, start, step in zip(node["axes"], node["starts"], node["steps"], strict=True):
            starts[axis], steps[axis] = start, step
    elif node.op == "pad":
        starts, fill = [-before for before in node["before"]], node["code"]
    spec = CopySpec(source.shape, result.shape, source.layout, result.layout, result.dtype, tuple(starts), tuple(steps))
    if node.op == "reshape":
        spec = replace(spec, starts=(), steps=(), reshape=True)
    lowering.step(node, spec, {"x": node.inputs[0]}, {Scalar.X_ZERO: fill})


def _one_row(source: Image, result: Image) -> bool:
    """Whether both are one row of channels a sample, so that a reshape moves nothing."""
    return source.shape[1] == result.shape[1] and all(size == 1 for size in (*source.shape[2:], *result.shape[2:]))
