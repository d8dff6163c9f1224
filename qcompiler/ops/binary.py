"""Element-by-element operators of two tensors: add, sub, mul, maximum, minimum.

In the integer stage each is one rounding of zero-free codes; the formulas stand in ``arith``. Operands may broadcast, and one
may be a constant of codes with one scale and zero point 0. A subtraction is an addition with a negative multiplier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from qcompiler import arith
from qcompiler.ir.dtypes import F32, FloatType
from qcompiler.ir.graph import BATCH, Array, Node, TensorType
from qcompiler.ops.operator import ALL_STAGES, FLOAT_STAGES, Operand, Operator, require, zero_of

if TYPE_CHECKING:
    import torch

# Stands for the batch, so that numpy can broadcast shapes: a prime that no model has as a dimension.
_STAND_IN = 2**31 - 1


def broadcast_shape(name: str, operands: Sequence[Operand]) -> tuple[int | str, ...]:
    """The common shape of two operands by numpy's rules, with the batch in its place."""
    require(len(operands) == 2, f"{name} takes 2 operands, not {len(operands)}")
    a, b = (operand.type for operand in operands)
    try:
        shape = np.broadcast_shapes(a.with_batch(_STAND_IN), b.with_batch(_STAND_IN))
    except ValueError:
        require(False, f"{name}: {a} and {b} cannot be broadcast together")
    return tuple(BATCH if d == _STAND_IN else d for d in shape)


class Binary(Operator):
    """What the five share."""

    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        shape = broadcast_shape(self.name, operands)
        floating = all(isinstance(operand.type.dtype, FloatType) for operand in operands)
        return TensorType(F32 if floating else node.output.type.dtype, shape)  # type: ignore[arg-type]

    @staticmethod
    def _zero_free(operands: Sequence[Operand], inputs: Sequence[Array]) -> list[Array]:
        return [x - zero_of(operand) for x, operand in zip(inputs, operands, strict=True)]

    @staticmethod
    def _tail(node: Node) -> tuple[int, int, int, int]:
        return (node["shift"], node.output.zero or 0, *node["limits"])


class Add(Binary):
    """``add(a, b)``, optional ``clamp``; integer: ``multipliers=(m1, m2)``, ``shift=``, ``limits=(lo, hi)``."""

    name = "add"

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        from qcompiler.ops.clip import clamp_float

        return clamp_float(node, inputs[0] + inputs[1])

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        a, b = self._zero_free(operands, inputs)
        m1, m2 = node["multipliers"]
        result: Array = arith.add(a, m1, b, m2, *self._tail(node), arith.NUMPY)
        return result


class Sub(Binary):
    """``sub(a, b)``, optional ``clamp``; float stages only."""

    name = "sub"
    stages = FLOAT_STAGES

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        from qcompiler.ops.clip import clamp_float

        return clamp_float(node, inputs[0] - inputs[1])


class Mul(Binary):
    """``mul(a, b)``, optional ``clamp``; integer: ``multiplier=``, ``shift=``, ``limits=``, with an int64 product."""

    name = "mul"

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        from qcompiler.ops.clip import clamp_float

        return clamp_float(node, inputs[0] * inputs[1])

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        a, b = self._zero_free(operands, inputs)
        result: Array = arith.requantize(a * b, node["multiplier"], *self._tail(node), arith.NUMPY)
        return result


class _Extremum(Binary):
    """``maximum(a, b)`` and ``minimum(a, b)``; integer: ``multipliers=(m1, m2)``, ``shift=``, ``limits=``."""

    largest: bool

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        return (torch.maximum if self.largest else torch.minimum)(inputs[0], inputs[1])

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        a, b = self._zero_free(operands, inputs)
        m1, m2 = node["multipliers"]
        result: Array = arith.extremum(a, m1, b, m2, *self._tail(node), arith.NUMPY, largest=self.largest)
        return result


class Maximum(_Extremum):
    """The larger element."""

    name = "maximum"
    largest = True


class Minimum(_Extremum):
    """The smaller element."""

    name = "minimum"
    largest = False
