"""From int32 accumulators (or codes of another scale) to output codes: the formulas stand in ``arith``.

``multiplier`` is int32[channels], along axis 1; ``shift`` and ``limits=(lo, hi)`` are attributes; the output's zero point is
its value's.
The narrow forms add ``pre_shift``, ``lower`` and ``upper``, int32[channels] each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from typing_extensions import override

from qcompiler import arith
from qcompiler.ir.dtypes import I32, IntegerType
from qcompiler.ir.graph import Array, Graph, Node, TensorType
from qcompiler.ops.operator import INTEGER_STAGE, Operand, Operator, require, zero_of


def _serves(condition: Callable[..., bool], graph: Graph, node: Node) -> bool:
    """Whether ``condition`` holds for the constants of a requantize_narrow to unsigned codes."""
    dtype = node.output.type.dtype
    if node.op != "requantize_narrow" or not isinstance(dtype, IntegerType) or dtype.signed:
        return False
    constants = (graph.constant[name].data.astype(np.int64) for name in node.inputs[1:5])
    return condition(*constants, node["shift"], node.output.zero or 0, *node["limits"])


def is_short(graph: Graph, node: Node) -> bool:
    """Whether :func:`arith.requantize_short` serves."""
    return _serves(arith.is_short, graph, node)


def is_add_short(graph: Graph, node: Node) -> bool:
    """Whether :func:`arith.requantize_add_short` serves."""
    types = (node.output.type, graph.type_of(node.inputs[-1]))
    if node.op != "requantize_add_narrow" or any(kind.dtype.container != np.uint8 for kind in types):
        return False
    multiplier, first_shift, lower, upper = (graph.constant[name].data.astype(np.int64) for name in node.inputs[1:5])
    lo, hi = node["limits"]
    return arith.is_add_short(multiplier, first_shift, lower, upper, node["other_multiplier"], node["shift"], lo, hi)


def is_saturated(graph: Graph, node: Node) -> bool:
    """Whether a requantize_narrow's codes are the uppermost bytes of its products: :func:`arith.requantize_saturated` serves."""
    return _serves(arith.saturates, graph, node) and node["shift"] == arith.SATURATED_SHIFT


class _FromAccumulator(Operator):
    """What the four forms share."""

    stages = INTEGER_STAGE
    constants: int
    residual: bool

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        expected = 1 + self.constants + self.residual
        require(len(operands) == expected, f"{self.name} takes {expected} operands, not {len(operands)}")
        accumulator = operands[0].type
        require(accumulator.dtype == I32, f"{self.name} reads int32 accumulators, not {accumulator}")
        channels = accumulator.shape[1]
        for operand in operands[1 : 1 + self.constants]:
            require(operand.type == TensorType(I32, (channels,)), f"{self.name}: {operand.type} is not i32[{channels}]")
        if self.residual:
            require(
                operands[-1].type.shape == accumulator.shape, f"{self.name}: {operands[-1].type} is not shaped like {accumulator}"
            )
        return TensorType(node.output.type.dtype, accumulator.shape)

    def _arguments(self, inputs: Sequence[Array], operands: Sequence[Operand]) -> list[Array]:
        """Accumulator, per-channel constants along the channel axis, zero-free residual."""
        accumulator = inputs[0]
        shape = (1, -1, *[1] * (accumulator.ndim - 2))
        arguments = [accumulator, *(c.reshape(shape) for c in inputs[1 : 1 + self.constants])]
        return [*arguments, inputs[-1] - zero_of(operands[-1])] if self.residual else arguments

    def _tail(self, node: Node) -> tuple[int, int, int, int]:
        return (node["shift"], node.output.zero or 0, *node["limits"])


class Requantize(_FromAccumulator):
    """``requantize(acc, multiplier, shift=, limits=)``."""

    name = "requantize"
    constants, residual = 1, False

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        accumulator, multiplier = self._arguments(inputs, operands)
        shift, zero, lo, hi = self._tail(node)
        result: Array = arith.requantize(accumulator, multiplier, shift, zero, lo, hi, arith.NUMPY)
        return result


class RequantizeNarrow(_FromAccumulator):
    """``requantize_narrow(acc, multiplier, pre_shift, lower, upper, shift=, limits=)``."""

    name = "requantize_narrow"
    constants, residual = 4, False

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        accumulator, multiplier, first, lower, upper = self._arguments(inputs, operands)
        shift, zero, lo, hi = self._tail(node)
        result: Array = arith.requantize_narrow(accumulator, multiplier, first, lower, upper, shift, zero, lo, hi, arith.NUMPY)
        return result


class RequantizeAdd(_FromAccumulator):
    """``requantize_add(acc, multiplier, other, other_multiplier=, shift=, limits=)``: a residual addition in the accumulator."""

    name = "requantize_add"
    constants, residual = 1, True

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        accumulator, multiplier, other = self._arguments(inputs, operands)
        shift, zero, lo, hi = self._tail(node)
        result: Array = arith.requantize_add(
            accumulator, multiplier, other, node["other_multiplier"], shift, zero, lo, hi, arith.NUMPY
        )
        return result


class RequantizeAddNarrow(_FromAccumulator):
    """``requantize_add_narrow(acc, multiplier, pre_shift, lower, upper, other, other_multiplier=, shift=, limits=)``."""

    name = "requantize_add_narrow"
    constants, residual = 4, True

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        accumulator, multiplier, first, lower, upper, other = self._arguments(inputs, operands)
        shift, zero, lo, hi = self._tail(node)
        result: Array = arith.requantize_add_narrow(
            accumulator, multiplier, first, lower, upper, other, node["other_multiplier"], shift, zero, lo, hi, arith.NUMPY
        )
        return result


class Rescale(Operator):
    """``rescale(x, multiplier=, shift=, limits=)``: codes of one scale to codes of another, or a clip of codes."""

    name = "rescale"
    stages = INTEGER_STAGE

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) == 1, f"rescale takes 1 operand, not {len(operands)}")
        return TensorType(node.output.type.dtype, operands[0].type.shape)

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        codes = inputs[0] - zero_of(operands[0])
        lo, hi = node["limits"]
        zero = node.output.zero or 0
        result: Array = arith.requantize(codes, node["multiplier"], node["shift"], zero, lo, hi, arith.NUMPY)
        return result
