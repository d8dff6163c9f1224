"""Emitter of linear resizing: Resize where ONNX has a coordinate rule for it, else products with interpolation matrices."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import numpy as np

from qcompiler.exporters.call import Call
from qcompiler.ops.resize import linear_taps

AXES_OPSET: Final = 18
"""Since then Resize can name its axes; before it wants the size of the batch too."""


def coordinate_rule(size: int, out: int, numerator: int, offset: int, denominator: int) -> str | None:
    """ONNX's name for reading position ``(o * numerator + offset) / denominator`` for output o; None if it has none."""
    step, start = Fraction(numerator, denominator), Fraction(offset, denominator)
    rules = {
        "half_pixel": (Fraction(size, out), Fraction(size, 2 * out) - Fraction(1, 2)),
        "align_corners": (Fraction(size - 1, out - 1) if out > 1 else Fraction(0), Fraction(0)),
        "asymmetric": (Fraction(size, out), Fraction(0)),
    }
    return next((name for name, rule in rules.items() if rule == (step, start)), None)


def resize_linear(call: Call) -> str:
    """Resize, or MatMul from both sides."""
    node = call.node
    sizes = call.type_of(0).with_batch(1)[2:]
    parts = list(zip(sizes, node["sizes"], node["numerators"], node["offsets"], node["denominators"], strict=True))
    rules = {coordinate_rule(*part) for part in parts}
    if len(rules) == 1 and None not in rules:
        call.builder.require(AXES_OPSET)
        operands = [call.operand(0), "", "", call.integers("sizes", node["sizes"])]
        return call.emit("Resize", operands, mode="linear", axes=[2, 3], coordinate_transformation_mode=rules.pop())
    rows, columns = (_matrix(*part) for part in parts)
    inner = call.helper("MatMul", [call.builder.initializer(f"{call.output.name}.rows", rows), call.operand(0)])
    return call.emit("MatMul", [inner, call.builder.initializer(f"{call.output.name}.columns", columns.T)])


def _matrix(
    size: int, out: int, numerator: int, offset: int, denominator: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """float64 ``[out, size]`` whose rows hold the two weights of every output."""
    first, second, weight = linear_taps(size, out, numerator, offset, denominator)
    matrix = np.zeros((out, size))
    np.add.at(matrix, (np.arange(out), first), 1 - weight / denominator)
    np.add.at(matrix, (np.arange(out), second), weight / denominator)
    return matrix
