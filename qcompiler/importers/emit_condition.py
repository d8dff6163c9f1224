"""Truth values: comparisons, what they are joined to, and their numbers 0 and 1.

A comparison with a number is a function of the tensor, in the integer stage a table of its codes. A comparison of two tensors is
one of their difference with 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np

from qcompiler.importers.builder import Known, Layer
from qcompiler.importers.emit_elementwise import binary, function
from qcompiler.importers.expressions import of_common_operand, substitute
from qcompiler.importers.operands import scalar, value
from qcompiler.ir.graph import Value

TURNED: Final = {"gt": "lt", "lt": "gt", "ge": "le", "le": "ge", "eq": "eq", "ne": "ne"}

TRUTH_VALUES: Final = "its elements are truth values; return numbers, as of (x > 0).float()"
"""Why a model cannot return a comparison."""


@dataclass(frozen=True)
class Condition:
    """Where ``truth``, an expression of the elements x of ``x``, is 1: it is 0 elsewhere.

    ``comparison`` and ``limit`` say it where it is one comparison with a number. Its numbers get the name of ``layer``.
    """

    layer: Layer
    x: Value
    truth: str = "x"
    comparison: str = ""
    limit: float = 0.0

    @cached_property
    def numbers(self) -> Value:
        """1 where it holds, 0 elsewhere."""
        return self.x if self.truth == "x" else function(self.layer, self.x, self.truth, ".numbers")


def compared(layer: Layer, a: object, comparison: str, b: object) -> Condition:
    """A comparison (gt, ge, lt, le, eq, ne) of two tensors of which one may be a constant."""
    for x, other, kind in ((a, b, comparison), (b, a, TURNED[comparison])):
        if isinstance(x, Value) and (number := scalar(other)) is not None:
            return Condition(layer, x, _truth(kind, number), kind, number)
    difference = binary(layer, "sub", a, b, ".difference")
    return Condition(layer, difference, _truth(comparison, 0.0), comparison, 0.0)


def _truth(comparison: str, limit: float) -> str:
    above, below = f"gt(x, {limit!r})", f"gt(-x, {-limit!r})"
    return {
        "gt": above,
        "le": f"1 - {above}",
        "lt": below,
        "ge": f"1 - {below}",
        "eq": f"1 - {above} - {below}",
        "ne": f"{above} + {below}",
    }[comparison]


def truth_of(layer: Layer, x: object) -> Condition:
    """``x`` as truth values: numbers are true where they are not 0."""
    return x if isinstance(x, Condition) else compared(layer, value(x), "ne", layer.known(np.zeros((), np.float32), "zero"))


def inverted(layer: Layer, x: object) -> Condition:
    """Not ``x``."""
    condition = truth_of(layer, x)
    return Condition(layer, condition.x, f"1 - ({condition.truth})")


def joined(layer: Layer, how: Literal["and", "or", "xor"], a: object, b: object) -> Condition:
    """``a`` and, or, xor ``b``, of which one may be a constant."""
    if isinstance(a, Known):
        a, b = b, a
    first = truth_of(layer, a)
    if isinstance(b, Known):
        return _joined_to_constant(layer, how, first, b.data.astype(bool))
    second = truth_of(layer, b)
    common = of_common_operand(layer.builder, first.x, second.x)
    if common is not None:
        root, (x, y) = common
        return Condition(layer, root, _joined(how, substitute(first.truth, x), substitute(second.truth, y)))
    product = binary(layer, "mul", first.numbers, second.numbers, ".both")
    if how == "and":
        return Condition(layer, product)
    total = binary(layer, "add", first.numbers, second.numbers, ".sum")
    return Condition(layer, total, "gt(x, 0.5)" if how == "or" else "gt(x, 0.5) - gt(x, 1.5)")


def _joined(how: Literal["and", "or", "xor"], a: str, b: str) -> str:
    if how == "and":
        return f"({a}) * ({b})"
    total = f"({a}) + ({b})"
    return f"gt({total}, 0.5)" if how == "or" else f"gt({total}, 0.5) - gt({total}, 1.5)"


def _joined_to_constant(layer: Layer, how: Literal["and", "or", "xor"], x: Condition, mask: np.ndarray) -> Condition:
    """``x * mask`` for and; the others are made of it: a or b is not (not a and not b), xor adds what is in one only."""
    if how == "xor":
        signs = layer.known(np.where(mask, -1, 1).astype(np.float32), "signs")
        turned = binary(layer, "mul", x.numbers, signs, ".turned")
        return Condition(layer, binary(layer, "add", turned, layer.known(mask.astype(np.float32), "mask"), ".either"))
    kept = inverted(layer, x) if how == "or" else x
    known = layer.known((~mask if how == "or" else mask).astype(np.float32), "mask")
    both = Condition(layer, binary(layer, "mul", kept.numbers, known, ".both"))
    return inverted(layer, both) if how == "or" else both
