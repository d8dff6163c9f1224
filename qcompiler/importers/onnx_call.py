"""One node of an ONNX model, as its handler sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcompiler.importers import operands
from qcompiler.importers.builder import Known, Layer, UnsupportedError
from qcompiler.importers.onnx_sizes import Sizes
from qcompiler.ir.graph import Array, Dim, Value


@dataclass(frozen=True)
class Call:
    """One node: its operands, attributes and the model's operator set.

    ``names``: for the values of its outputs. ``extra``: an output other than the first is read.
    """

    layer: Layer
    inputs: list[Any]
    attributes: dict[str, Any]
    opset: int
    names: tuple[str, ...]
    extra: bool

    def operand(self, index: int) -> Any:
        """An operand, None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    @property
    def x(self) -> Value:
        """The first operand, which is computed."""
        return operands.value(self.operand(0))

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute; strings are decoded."""
        found = self.attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else found

    def flag(self, name: str, default: int = 0) -> bool:
        """An attribute that is 0 or 1."""
        found = self.get(name, default)
        if found not in (0, 1):
            raise UnsupportedError(f"{name}={found} is neither 0 nor 1")
        return bool(found)

    def array(self, index: int, what: str) -> Array | None:
        """The data of a constant operand, None where it is left out."""
        x = operands.optional_known(self.operand(index), what)
        return None if x is None else x.data

    def numbers(self, attribute: str, index: int) -> list[int] | None:
        """Integers that stand in an attribute in older operator sets and in an operand in newer ones."""
        if attribute in self.attributes:
            given = self.attributes[attribute]
            return [int(i) for i in given] if isinstance(given, list | tuple) else [int(given)]
        data = self.array(index, f"its operand {attribute!r}")
        return None if data is None else [int(i) for i in data.reshape(-1)]

    def shape(self, index: int, what: str) -> list[Dim | None]:
        """A shape that may have the symbolic batch in it; None for sizes that are not known."""
        wanted = self.operand(index)
        if isinstance(wanted, Sizes):
            return list(wanted.items)
        return [int(d) for d in operands.known(wanted, what).data.reshape(-1)]

    def pair(self) -> tuple[Any, Any]:
        """Two operands, of which the second was to be broadcast in the way of operator set 6."""
        a, b = self.operand(0), self.operand(1)
        axis = self.get("axis") if self.opset < 7 and self.flag("broadcast") else None
        rank = len(a.type.shape) if isinstance(a, Value) else np.ndim(a.data) if isinstance(a, Known) else 0
        if axis is not None and isinstance(b, Known):
            behind = rank - (axis % rank) - b.data.ndim
            b = Known(b.data.reshape(b.data.shape + (1,) * max(behind, 0)), b.name)
        return a, b


def element_type(number: int) -> str:
    """ONNX's name of a type of elements, in small letters."""
    from onnx import TensorProto

    names: dict[int, str] = {value: name.lower() for name, value in TensorProto.DataType.items()}
    return names.get(number, f"{number}, which ONNX does not know,")


Handler = Callable[[Call], object]
"""Gives a value, a tuple of them for several outputs, a constant, or an ending."""
