"""Operators that work element by element on stored elements."""

from __future__ import annotations

from qcompiler.backend.kernel import AddSpec, RescaleSpec, Scalar
from qcompiler.backend.lowering import Lowering, output_scalars
from qcompiler.ir.graph import Node
from qcompiler.ops.operator import zero_of


def add(lowering: Lowering, node: Node) -> None:
    """A sum of two tensors."""
    a, b = (lowering.graph.values[name] for name in node.inputs)
    image = lowering.image(node.output.type, node.origin)
    spec = AddSpec(image.elements, a.type.dtype.container.name, b.type.dtype.container.name, image.dtype)
    scalars = {
        **output_scalars(node),
        Scalar.X_ZERO: zero_of(a),
        Scalar.X_MULTIPLIER: node["multipliers"][0],
        Scalar.RESIDUAL_ZERO: zero_of(b),
        Scalar.RESIDUAL_MULTIPLIER: node["multipliers"][1],
    }
    lowering.step(node, spec, {"x": a.name, "residual": b.name}, scalars)


def rescale(lowering: Lowering, node: Node) -> None:
    """Codes of one scale to codes of another."""
    x = lowering.graph.values[node.inputs[0]]
    image = lowering.image(node.output.type, node.origin)
    spec = RescaleSpec(image.elements, x.type.dtype.container.name, image.dtype)
    scalars = {**output_scalars(node), Scalar.X_ZERO: zero_of(x), Scalar.X_MULTIPLIER: node["multiplier"]}
    lowering.step(node, spec, {"x": x.name}, scalars)
