"""Linear resizing."""

from __future__ import annotations

from qcompiler.backend.kernel import ResizeSpec, Scalar
from qcompiler.backend.lowering import Lowering
from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import Node
from qcompiler.ops.operator import zero_of
from qcompiler.ops.resize import linear_taps


def resize(lowering: Lowering, node: Node) -> None:
    """Resizing of height and width; a multiplier that is a power of two is taken off the shift."""
    x = lowering.graph.values[node.inputs[0]]
    source, dtype = lowering.image(x.type, node.origin or node.output.name), node.output.type.dtype
    assert isinstance(dtype, IntegerType)
    axes = zip(source.shape[-2:], node["sizes"], node["numerators"], node["offsets"], node["denominators"], strict=True)
    rows, columns = (
        tuple((int(first), int(second), int(weight)) for first, second, weight in zip(*linear_taps(*axis), strict=True))
        for axis in axes
    )
    multiplier, shift = node["multiplier"], node["shift"]
    while multiplier % 2 == 0 and shift > 1 and multiplier > 0:
        multiplier, shift = multiplier // 2, shift - 1
    denominators = node["denominators"]
    largest = (dtype.maximum - dtype.minimum) * denominators[0] * denominators[1]
    spec = ResizeSpec(
        images=lowering.batch,
        height=source.shape[2],
        width=source.shape[3],
        channels=source.shape[1],
        rows=rows,
        columns=columns,
        denominators=denominators,
        dtype=source.dtype,
        narrow=largest * multiplier + (1 << shift) < 1 << 31,
    )
    scalars = {
        Scalar.X_ZERO: zero_of(x),
        Scalar.X_MULTIPLIER: multiplier,
        Scalar.SHIFT: shift,
        Scalar.LO: dtype.minimum,
        Scalar.HI: dtype.maximum,
    }
    lowering.step(node, spec, {"x": x.name}, scalars)
