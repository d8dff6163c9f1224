"""Choices between two functions of a tensor by a comparison with a number: what where, prelu and shrinking are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from qcompiler.importers.builder import Known, Layer, UnsupportedError
from qcompiler.importers.emit_elementwise import function, prelu
from qcompiler.importers.expressions import of_common_operand, substitute
from qcompiler.importers.operands import scalar
from qcompiler.ir.graph import Value

TURNED: Final = {"gt": "lt", "lt": "gt", "ge": "le", "le": "ge"}


@dataclass(frozen=True)
class Condition:
    """Whether the elements of ``x`` are ``gt`` (greater than), ``ge``, ``lt`` or ``le`` a number."""

    x: Value
    comparison: str
    limit: float

    def expression(self, x: str) -> str:
        """1 where it holds for the expression ``x``, 0 elsewhere."""
        above, below = f"gt({x}, {self.limit!r})", f"gt(-({x}), {-self.limit!r})"
        return {"gt": above, "le": f"(1 - {above})", "lt": below, "ge": f"(1 - {below})"}[self.comparison]


def compared(a: object, comparison: str, b: object) -> Condition:
    """A comparison of a tensor with a number."""
    for x, other, kind in ((a, b, comparison), (b, a, TURNED[comparison])):
        if isinstance(x, Value) and (number := scalar(other)) is not None:
            return Condition(x, kind, number)
    raise UnsupportedError("it does not compare a tensor with one number")


def where(layer: Layer, condition: object, a: object, b: object) -> Value:
    """``a`` where the condition holds, ``b`` elsewhere: both are numbers or functions of what is compared."""
    if not isinstance(condition, Condition):
        raise UnsupportedError("its condition is no comparison of a tensor with one number")
    if condition.limit == 0 and condition.comparison in ("gt", "ge") and a == condition.x:
        slope = _factor(layer, b, condition.x)
        if slope is not None:
            return prelu(layer, condition.x, slope)
    choices = [scalar(x) for x in (a, b)]
    values = [condition.x, *(x for x, number in zip((a, b), choices, strict=True) if number is None and isinstance(x, Value))]
    common = of_common_operand(layer.builder, *values) if len(values) == 1 + choices.count(None) else None
    if common is None:
        raise UnsupportedError("what it chooses from are no numbers or functions of the tensor that is compared")
    root, (compared_part, *rest) = common
    parts = iter(rest)
    yes, no = (next(parts) if number is None else repr(number) for number in choices)
    holds = condition.expression(compared_part)
    if root == condition.x:  # a branch that is not chosen may overflow: it gets the limit in the place of x
        above, below = f"max(x, {condition.limit!r})", f"min(x, {condition.limit!r})"
        greater = condition.comparison in ("gt", "ge")
        yes, no = substitute(yes, above if greater else below), substitute(no, below if greater else above)
    return function(layer, root, f"{holds} * ({yes}) + (1 - {holds}) * ({no})")


def _factor(layer: Layer, y: object, x: Value) -> Known | None:
    """The constant by which ``y`` is ``x`` multiplied, if it is."""
    node = layer.builder.producer(y) if isinstance(y, Value) else None
    if node is None or node.op != "mul" or x.name not in node.inputs:
        return None
    other = node.inputs[1 - node.inputs.index(x.name)]
    constant = layer.builder.find_constant(other)
    return None if constant is None else Known(np.array(constant.data), constant.name)
