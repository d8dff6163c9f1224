"""What an emitter gets: one node of the graph, the tensors that its operands became, and a place for new ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from qcompiler.exporters.onnx_builder import OnnxBuilder
from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import BATCH, Array, Dim, Graph, Node, TensorType, Value

if TYPE_CHECKING:
    from qcompiler.exporters.constants import Constants


@dataclass(frozen=True)
class Call:
    """One node. ``tensors``: the ONNX tensor with the real numbers of each value that is computed so far."""

    graph: Graph
    node: Node
    builder: OnnxBuilder
    tensors: dict[str, str]
    constants: Constants

    @property
    def output(self) -> Value:
        """The value that the node makes."""
        return self.node.output

    def type_of(self, index: int) -> TensorType:
        """The type of an operand."""
        return self.graph.type_of(self.node.inputs[index])

    def operand(self, index: int) -> str:
        """The tensor with the real numbers of an operand, computed or constant."""
        name = self.node.inputs[index]
        return self.tensors[name] if name in self.tensors else self.constants.real(self.graph.constant[name])

    def coded_operand(self, index: int) -> str:
        """:meth:`operand`, where the codes of a constant are those of the output, zero point and all."""
        constant = self.graph.constant.get(self.node.inputs[index])
        if constant is None or not isinstance(constant.type.dtype, IntegerType):
            return self.operand(index)
        return self.constants.coded_as(constant, self.output)

    def constant(self, index: int) -> Array:
        """The data of a constant operand."""
        return self.graph.constant[self.node.inputs[index]].data

    def operands(self) -> list[str]:
        """All of them."""
        return [self.operand(index) for index in range(len(self.node.inputs))]

    def emit(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append the operator that the user's layer is known for: it gets the layer's name."""
        return self._append(op, inputs, self.node.origin or self.output.name, attributes)

    def helper(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append an operator that goes before or after the one of :meth:`emit`."""
        return self._append(op, inputs, f"{self.node.origin or self.output.name}.{op}", attributes)

    def last(self, op: str, inputs: Sequence[str], outermost: bool, **attributes: Any) -> str:
        """:meth:`emit` for the ``outermost`` operator of several, :meth:`helper` for the others."""
        return (self.emit if outermost else self.helper)(op, inputs, **attributes)

    def _append(self, op: str, inputs: Sequence[str], name: str, attributes: dict[str, Any]) -> str:
        return self.builder.node(op, inputs, name, self.builder.unique(f"{self.output.name}.{op.lower()}"), **attributes)

    def to_float(self, x: str) -> str:
        """Integers as float32: all that goes between operators here are float tensors."""
        from onnx import TensorProto

        return self.helper("Cast", [x], to=TensorProto.FLOAT)

    def to_integer(self, x: str) -> str:
        """Whole numbers as int64, to be indices."""
        from onnx import TensorProto

        return self.helper("Cast", [self.helper("Round", [x])], to=TensorProto.INT64)

    def number(self, role: str, value: float) -> str:
        """A float constant of the node."""
        return self.builder.initializer(f"{self.output.name}.{role}", value)

    def integers(self, role: str, values: Sequence[int] | int) -> str:
        """An int64 list, or one number, that the node needs as an operand."""
        return self.builder.initializer(f"{self.output.name}.{role}", values, np.int64)

    def shape(self, dims: Sequence[Dim]) -> str:
        """A shape as the operand of Reshape; the batch is whatever is left."""
        return self.integers("shape", [-1 if d == BATCH else d for d in dims])

    def bounded(self, x: str, apart: bool = False) -> str:
        """``x`` under the node's clamp, or under those of its limits that the type of its codes does not imply.

        ``apart``: with an operator that is not fused with quantization, even if nothing has to be limited.
        """
        limits, dtype = self.node.get("limits"), self.output.type.dtype
        if limits is None or not isinstance(dtype, IntegerType):
            return self.clamped(x, *(self.node.get("clamp") or (-inf, inf)))
        low = -inf if limits[0] <= dtype.minimum else self.real(self.output, limits[0])
        high = inf if limits[1] >= dtype.maximum else self.real(self.output, limits[1])
        if not apart and not fusion_breaks(self.output):
            return self.clamped(x, low, high)
        if low > -inf:
            x = self.helper("Max", [x, self.number("low", low)])
        return self.helper("Min", [x, self.number("high", self.real(self.output, limits[1]))])

    def clamped(self, x: str, low: float, high: float) -> str:
        """``x`` within [low, high]."""
        if (low, high) == (-inf, inf):
            return x
        if (low, high) == (0.0, inf):
            return self.helper("Relu", [x])
        operands = [x, "" if low == -inf else self.number("low", low)]
        return self.helper("Clip", operands if high == inf else [*operands, self.number("high", high)])

    def apart(self, x: str, value: Value) -> str:
        """``x``, the real numbers of ``value``, kept from being fused with its quantization where that would break."""
        dtype = value.type.dtype
        if not fusion_breaks(value) or not isinstance(dtype, IntegerType):
            return x
        return self.helper("Min", [x, self.number("high", self.real(value, dtype.maximum))])

    @staticmethod
    def real(value: Value, code: int) -> float:
        """What a code of ``value`` stands for."""
        return (code - (value.zero or 0)) * (1.0 if value.scale is None else value.scale)


def fusion_breaks(value: Value) -> bool:
    """Whether ONNX Runtime (1.31) fuses operators with the quantization of ``value`` into something that it refuses.

    It does so for 4 bits: MaxPool and Conv become operators that have no such type, Relu and Clip vanish into a zero point
    that it misreads. Max and Min are not fused.
    """
    return value.scale is not None and value.type.dtype.bits <= 4


Emitter = Callable[[Call], str]
"""Appends a node's operators and gives the tensor with its real results, before they are quantized."""
