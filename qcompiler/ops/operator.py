"""What every operator defines: the type of its result, its float meaning, and its exact integer meaning."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from qcompiler.ir.graph import Array, Constant, Dim, Node, Stage, TensorType, Value

if TYPE_CHECKING:
    import torch

FLOAT_STAGES = frozenset({Stage.FLOAT, Stage.CALIBRATED, Stage.ALLOCATED})
INTEGER_STAGE = frozenset({Stage.INTEGER})
ALL_STAGES = FLOAT_STAGES | INTEGER_STAGE

Operand = Value | Constant


class TypeRuleError(Exception):
    """An operator does not accept these operands or attributes; the message says why, with the values."""


class Operator(ABC):
    """One operator. Subclasses say in which stages it is legal and implement what those stages need."""

    name: ClassVar[str]
    stages: ClassVar[frozenset[Stage]]

    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        """The type of the result; TypeRuleError when the operands do not fit."""
        raise NotImplementedError

    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """The float meaning, differentiable."""
        raise TypeRuleError(f"{self.name} has no meaning in float stages")

    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        """The exact result in int64; ``inputs`` are int64 arrays. This is the definition of right."""
        raise TypeRuleError(f"{self.name} has no meaning in the integer stage")


def require(condition: bool, problem: str) -> None:
    """Raise TypeRuleError(problem) unless ``condition`` holds."""
    if not condition:
        raise TypeRuleError(problem)


def zero_of(operand: Operand) -> int:
    """The zero point of an activation (0 where it has none)."""
    return (operand.zero or 0) if isinstance(operand, Value) else 0


def window_size(size: Dim, before: int, after: int, kernel: int, stride: int, dilation: int, ceil_mode: bool = False) -> int:
    """How many windows fit along one axis; with ``ceil_mode`` also a last partial one that begins inside the input."""
    require(isinstance(size, int), "spatial dimensions must be known")
    assert isinstance(size, int)
    room = size + before + after - dilation * (kernel - 1) - 1
    require(room >= 0, f"a window of {dilation * (kernel - 1) + 1} does not fit {size} elements padded by {before} and {after}")
    count = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + before:
        count -= 1
    return count
