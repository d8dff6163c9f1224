"""Sums and extremes over axes."""

from __future__ import annotations

from typing import Final

from qcompiler.backend.kernel import ReduceSpec, Scalar
from qcompiler.backend.lowering import Lowering, output_scalars
from qcompiler.ir.graph import Node
from qcompiler.ops.operator import zero_of

_KINDS: Final = {"sum": "sum", "amax": "max", "amin": "min"}


def reduce(lowering: Lowering, node: Node) -> None:
    """A sum with its requantization, or the largest or smallest code."""
    x = lowering.graph.values[node.inputs[0]]
    where = node.origin or node.output.name
    source, result = lowering.image(x.type, where), lowering.image(node.output.type, where)
    spec = ReduceSpec(_KINDS[node.op], source.shape, result.shape, tuple(sorted(node["axes"])), source.dtype, result.dtype)
    scalars = {}
    if node.op == "sum":
        scalars = {**output_scalars(node), Scalar.X_ZERO: zero_of(x), Scalar.X_MULTIPLIER: node["multiplier"]}
    lowering.step(node, spec, {"x": x.name}, scalars)
