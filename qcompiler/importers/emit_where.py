"""Choices between two tensors by truth values.

Where both are numbers or functions of the tensor that is compared, the choice is a function of it as well. Otherwise the truth
values are numbers 0 and 1 to multiply by.
"""

from __future__ import annotations

from math import isfinite

import numpy as np

from qcompiler.importers.builder import Known, Layer, OriginError, UnsupportedError
from qcompiler.importers.emit_condition import Condition
from qcompiler.importers.emit_elementwise import binary, function, prelu
from qcompiler.importers.expressions import of_common_operand, substitute
from qcompiler.importers.operands import scalar, value
from qcompiler.ir.graph import Value


def where(layer: Layer, condition: object, a: object, b: object) -> Value:
    """``a`` where the condition holds, ``b`` elsewhere; the condition may be constant, and so may one of the two."""
    if isinstance(condition, Value):  # truth values that were moved: numbers 0 and 1
        condition = Condition(layer, condition)
    if isinstance(condition, Condition):
        chosen = _leaky(layer, condition, a, b) or _function(layer, condition, a, b)
        if chosen is not None:
            return chosen
        holds: Value | Known = condition.numbers
        fails: Value | Known = function(layer, condition.numbers, "1 - x", ".fails")
    elif isinstance(condition, Known):
        mask = condition.data.astype(bool)
        holds, fails = (layer.known(m.astype(np.float32), what) for m, what in ((mask, "holds"), (~mask, "fails")))
    else:
        raise UnsupportedError("its condition is no truth value")
    return _sum_of_parts(layer, (holds, a), (fails, b))


def _sum_of_parts(layer: Layer, *chosen: tuple[Value | Known, object]) -> Value:
    """The sum of what is chosen, each times the number 0 or 1 of its choice."""
    parts: list[object] = []
    for (holds, x), what in zip(chosen, (".chosen", ".else"), strict=True):
        number = scalar(x)
        if number is not None and not isfinite(number):
            raise OriginError(f"it chooses {number} for some elements, and is no function of one tensor")
        if number == 0:
            continue
        if isinstance(holds, Known) and isinstance(x, Known):
            parts.append(Known(holds.data * x.data, holds.name))
        else:
            parts.append(holds if number == 1 else binary(layer, "mul", holds, x, what))
    first, *others = parts
    return binary(layer, "add", first, others[0]) if others else value(first)


def _leaky(layer: Layer, condition: Condition, a: object, b: object) -> Value | None:
    """``where(x > 0, x, x * slope)`` as prelu, if it is one."""
    if condition.limit != 0 or condition.comparison not in ("gt", "ge") or a != condition.x:
        return None
    slope = _factor(layer, b, condition.x)
    return None if slope is None else prelu(layer, condition.x, slope)


def _function(layer: Layer, condition: Condition, a: object, b: object) -> Value | None:
    """The choice as a function of one tensor, if it is one."""
    choices = [scalar(x) for x in (a, b)]
    values = [condition.x, *(x for x, number in zip((a, b), choices, strict=True) if number is None and isinstance(x, Value))]
    common = of_common_operand(layer.builder, *values) if len(values) == 1 + choices.count(None) else None
    if common is None:
        return None
    root, (compared_part, *rest) = common
    parts = iter(rest)
    yes, no = (next(parts) if number is None else repr(number) for number in choices)
    if "inf" in (yes, no) or "-inf" in (yes, no):
        return None
    holds = substitute(condition.truth, compared_part)
    if root == condition.x and condition.comparison in ("gt", "ge", "lt", "le"):
        # A branch that is not chosen may overflow: it gets the limit in the place of x.
        above, below = f"max(x, {condition.limit!r})", f"min(x, {condition.limit!r})"
        greater = condition.comparison in ("gt", "ge")
        yes, no = substitute(yes, above if greater else below), substitute(no, below if greater else above)
    return function(layer, root, f"({holds}) * ({yes}) + (1 - ({holds})) * ({no})")


def _factor(layer: Layer, y: object, x: Value) -> Known | None:
    """The constant by which ``y`` is ``x`` multiplied, if it is."""
    node = layer.builder.producer(y) if isinstance(y, Value) else None
    if node is None or node.op != "mul" or x.name not in node.inputs:
        return None
    other = node.inputs[1 - node.inputs.index(x.name)]
    constant = layer.builder.find_constant(other)
    return None if constant is None else Known(np.array(constant.data), constant.name)
