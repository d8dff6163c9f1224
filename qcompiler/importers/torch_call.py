"""One call of an aten operator, as its handler sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcompiler.importers import operands
from qcompiler.importers.builder import FixedBatchError, Layer, Missing
from qcompiler.importers.torch_constants import Symbolic
from qcompiler.ir.graph import Dim, Value


@dataclass(frozen=True)
class Call:
    """One call: its arguments by the names of torch's schema, the shape and type of its (first) result, the constant batch."""

    layer: Layer
    arguments: dict[str, Any]
    shape: tuple[Dim | str, ...]
    dtype: str
    batch: int | None

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument that not all overloads have."""
        return self.arguments.get(name, default)

    @property
    def operand(self) -> Any:
        """The first operand, computed or constant."""
        return self.arguments["self"] if "self" in self.arguments else self.arguments["input"]

    @property
    def x(self) -> Value:
        """The first operand, which is computed."""
        return operands.value(self.operand)

    def tensor(self, name: str) -> Any:
        """A tensor argument, for which a number may stand."""
        x = self.arguments[name]
        if isinstance(x, Symbolic):
            raise FixedBatchError("it computes with a number that depends on the batch")
        return self.layer.known(np.array(x, np.float32), name) if isinstance(x, int | float) else x

    def sizes(self) -> list[Dim | None]:
        """The shape of the result; None for a dimension that depends on the batch in another way than being it."""
        return [d if isinstance(d, int) or d == "N" else None for d in self.shape]  # type: ignore[misc]

    def names(self, count: int) -> list[str]:
        """Names for the values of several results."""
        return [f"{self.layer.name}.{index}" for index in range(count)]


Handler = Callable[[Call], object]
"""Gives a value, a tuple of them for several results, a constant, or an ending."""


def spread(x: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """One number for each axis, from one for all or one for each."""
    values = (x,) if isinstance(x, int) else tuple(x)
    return values * axes if len(values) == 1 else values


def first_of(handler: Handler, why: str) -> Handler:
    """The operator also returns tensors that are not supported, for the reason ``why``."""

    def several(c: Call) -> object:
        missing = Missing(c.layer, why)
        return (handler(c), missing, missing)

    return several


def table(entries: dict[str, Handler]) -> dict[str, Handler]:
    """Handlers by whole names, from names in lists."""
    return {f"aten.{name}": handler for names, handler in entries.items() for name in names.split()}
