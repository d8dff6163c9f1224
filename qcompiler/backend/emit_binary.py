"""Operators of two tensors: sums, products and extremes element by element, and matrix products.

An operand that is a constant lies in the weights blob as a sample of an activation does.
"""

from __future__ import annotations

from qcompiler import arith
from qcompiler.backend.image import PHYSICAL
from qcompiler.backend.index_map import stored_array
from qcompiler.backend.kernel import AddSpec, BinarySpec, MatmulSpec, Scalar
from qcompiler.backend.lowering import Lowering, output_scalars
from qcompiler.backend.program import Address
from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import Constant, Node, Value
from qcompiler.ops.operator import Operand, zero_of


def add(lowering: Lowering, node: Node) -> None:
    """A sum: one run over stored elements where both operands are values of the result's shape."""
    graph = lowering.graph
    if any(name not in graph.values or graph.values[name].type.shape != node.output.type.shape for name in node.inputs):
        binary(lowering, node)
        return
    a, b = (graph.values[name] for name in node.inputs)
    image = lowering.image(node.output.type, node.origin)
    spec = AddSpec(image.elements, a.type.dtype.container.name, b.type.dtype.container.name, image.dtype)
    lowering.step(node, spec, {"x": a.name, "residual": b.name}, _scalars(node, (a, b)))


def binary(lowering: Lowering, node: Node) -> None:
    """A sum, product, maximum or minimum whose operands broadcast, or of which one is a constant."""
    rank = len(lowering.image(node.output.type, node.origin or node.output.name).shape)
    operands = _operands(lowering, node)
    reads: dict[str, str] = {}
    constants: dict[str, Address] = {}
    shapes = []
    for argument, operand in zip(("x", "residual"), operands, strict=True):
        if isinstance(operand, Value):
            shapes.append(lowering.image(operand.type, operand.name).shape)
            reads[argument] = operand.name
        else:
            data = operand.data.reshape((1,) * (rank - operand.data.ndim) + operand.data.shape)
            shapes.append(data.shape)
            constants[argument] = lowering.constants.add(stored_array(data, PHYSICAL))
    a, b = operands
    headroom = None
    if node.op == "mul":
        headroom = arith.headroom(largest(a) * largest(b), node["shift"])
    dtypes = (a.type.dtype.container.name, b.type.dtype.container.name, node.output.type.dtype.container.name)
    spec = BinarySpec(node.op, shapes[0], shapes[1], *dtypes, headroom)
    lowering.step(node, spec, reads, _scalars(node, operands), **constants)


def matmul(lowering: Lowering, node: Node) -> None:
    """A matrix product of two values."""
    a, b = operands = _operands(lowering, node)
    images = [lowering.image(operand.type, node.origin or node.output.name) for operand in operands]
    sums = largest(a) * largest(b) * images[0].shape[-1]
    spec = MatmulSpec(
        a_shape=images[0].shape,
        b_shape=images[1].shape,
        a_dtype=images[0].dtype,
        b_dtype=images[1].dtype,
        out_dtype=node.output.type.dtype.container.name,
        headroom=arith.headroom(sums, node["shift"]),
    )
    lowering.step(node, spec, {"x": a.name, "residual": b.name}, _scalars(node, operands))


def largest(operand: Operand) -> int:
    """The largest magnitude of a zero-free code."""
    if isinstance(operand, Constant):
        return max((abs(int(edge)) for edge in (operand.data.min(), operand.data.max())), default=0)
    dtype, zero = operand.type.dtype, zero_of(operand)
    assert isinstance(dtype, IntegerType)
    return max(abs(dtype.minimum - zero), abs(dtype.maximum - zero))


def _operands(lowering: Lowering, node: Node) -> tuple[Operand, Operand]:
    a, b = (lowering.graph.values.get(name) or lowering.graph.constant[name] for name in node.inputs)
    return a, b


def _scalars(node: Node, operands: tuple[Operand, Operand]) -> dict[Scalar, int]:
    """Zero points, and the multiplier of the result or those of the operands."""
    scalars = {
        **output_scalars(node),
        Scalar.X_ZERO: zero_of(operands[0]),
        Scalar.RESIDUAL_ZERO: zero_of(operands[1]),
    }
    if node.op in ("mul", "matmul"):
        return {**scalars, Scalar.X_MULTIPLIER: node["multiplier"]}
    first, second = node["multipliers"]
    return {**scalars, Scalar.X_MULTIPLIER: first, Scalar.RESIDUAL_MULTIPLIER: second}
