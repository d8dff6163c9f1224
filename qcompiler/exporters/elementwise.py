"""Emitters of operators that work element by element, and of the requantizations, which are clamps of real numbers."""

from __future__ import annotations

from math import inf

import numpy as np

from qcompiler.exporters.call import Call, Emitter
from qcompiler.ir.dtypes import IntegerType


def binary(op: str) -> Emitter:
    """An ONNX operator of two operands that broadcasts as numpy does."""

    def emitter(call: Call) -> str:
        return call.bounded(call.emit(op, call.operands()))

    return emitter


def add(call: Call) -> str:
    """Add, or Sub for a subtraction, which in the integer stage is an addition with a negative multiplier."""
    first, second = call.operands()
    signs = [multiplier < 0 for multiplier in call.node.get("multipliers", (1, 1))]
    if signs[0]:
        first = call.helper("Neg", [first])
    return call.bounded(call.emit("Sub" if signs[1] else "Add", [first, second]))


def clip(call: Call) -> str:
    """Relu or Clip, with the layer's name."""
    low, high = call.node["clamp"]
    if (low, high) == (0.0, inf):
        return call.emit("Relu", [call.operand(0)])
    limits = ["" if low == -inf else call.number("low", low), "" if high == inf else call.number("high", high)]
    return call.emit("Clip", [call.operand(0), *limits])


def prelu(call: Call) -> str:
    """PRelu; in the integer stage a channel's slope is the ratio of its two multipliers."""
    slope, rank = call.constant(1), len(call.type_of(0).shape)
    if isinstance(call.graph.type_of(call.node.inputs[1]).dtype, IntegerType):
        slope = slope / max(1, call.node["multiplier"])
    along = np.reshape(slope, (-1, *[1] * (rank - 2)))
    return call.bounded(call.emit("PRelu", [call.operand(0), call.builder.initializer(f"{call.output.name}.slope", along)]))


def requantize(call: Call) -> str:
    """Nothing but the clamp: the accumulators are real numbers here, and what follows quantizes them."""
    return call.bounded(call.operand(0))


def rescale(call: Call) -> str:
    """The clamp, kept from being fused: ONNX Runtime makes one quantization of two in a row, which skips a rounding."""
    return call.bounded(call.operand(0), apart=True)


def requantize_add(call: Call) -> str:
    """A residual addition to the accumulators, which are not quantized before it."""
    return call.bounded(call.emit("Add", [call.operand(0), call.operand(len(call.node.inputs) - 1)]))
