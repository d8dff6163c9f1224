"""The quantizers of a quantized model, whatever format it came in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qcompiler.importers.builder import GraphBuilder, Layer
from qcompiler.ir.graph import MOVES, Attribute, Value


@dataclass(frozen=True)
class Quantization:
    """Scale, zero point, smallest and largest code of an activation."""

    scale: float
    zero: int
    lowest: int
    highest: int

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest number that has a code."""
        return (self.lowest - self.zero) * self.scale, (self.highest - self.zero) * self.scale


_INSIDE: Final = tuple(op for op in MOVES if op != "pad")
"""Moves whose results are not beyond their operands, or between codes."""


def quantizer(layer: Layer, x: Value, by: Quantization) -> Value:
    """``x`` as ``by`` quantizes it: a value of its own, the same for equal quantizers; ``x`` itself where it is quantized so."""
    builder = layer.builder
    wanted: dict[str, Attribute] = {"clamp": by.range, "step": by.scale}
    if _is_quantized_by(builder, x, wanted):
        return x
    same = next((n for n in builder.readers(x) if n.op == "quantizer" and dict(n.attributes) == wanted), None)
    return same.output if same is not None else layer.emit("quantizer", [x], ".quantizer", **wanted)


def _is_quantized_by(builder: GraphBuilder, x: Value, wanted: dict[str, Attribute]) -> bool:
    node = builder.producer(x)
    if node is None:
        return False
    if node.op == "concat":
        computed = [name for name in node.inputs if builder.find_constant(name) is None]
        return computed == list(node.inputs) and all(_is_quantized_by(builder, builder.value(name), wanted) for name in computed)
    if node.op in _INSIDE:
        return _is_quantized_by(builder, builder.value(node.inputs[0]), wanted)
    return node.op == "quantizer" and dict(node.attributes) == wanted
