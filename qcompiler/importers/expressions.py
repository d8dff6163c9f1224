"""Functions that a model spells out: ``x / (1 + abs(x))`` is one function of x, whatever operators it was written with."""

from __future__ import annotations

import re
from typing import Final

from qcompiler.importers.builder import GraphBuilder
from qcompiler.ir.graph import Node, Value

DEEPEST: Final = 16
_BINARY: Final = {"add": "+", "sub": "-", "mul": "*"}


def substitute(expression: str, x: str) -> str:
    """``expression`` of the expression ``x``."""
    return expression if x == "x" else re.sub(r"\bx\b", lambda _: f"({x})", expression)


def of_common_operand(builder: GraphBuilder, *values: Value) -> tuple[Value, list[str]] | None:
    """The nearest tensor of which all ``values`` are functions, with these; None where there is none."""
    for root in _sources(builder, values[0]):
        parts = [_expression(builder, y, root, DEEPEST) for y in values]
        known = [part for part in parts if part is not None]
        if len(known) == len(values) and all(y.type == root.type for y in values):
            return root, known
    return None


def _elementwise(builder: GraphBuilder, y: Value) -> Node | None:
    node = builder.producer(y)
    return node if node is not None and node.op in ("function", "clip", "identity", *_BINARY) else None


def _sources(builder: GraphBuilder, y: Value) -> list[Value]:
    """``y`` and the tensors that it is computed from element by element, nearest first."""
    found = [y]
    for value in found:
        node = _elementwise(builder, value)
        for name in node.inputs if node is not None and len(found) < DEEPEST else ():
            if builder.find_constant(name) is None and (operand := builder.value(name)) not in found:
                found.append(operand)
    return found


def _expression(builder: GraphBuilder, y: Value, root: Value, depth: int) -> str | None:
    """``y`` as a function of ``root``; None where it is none."""
    if y == root:
        return "x"
    node = _elementwise(builder, y)
    if node is None or not depth:
        return None
    operands: list[str] = []
    for name in node.inputs:
        constant = builder.find_constant(name)
        if constant is not None and constant.data.size == 1:
            operands.append(repr(float(constant.data.reshape(-1)[0])))
            continue
        inner = None if constant is not None else _expression(builder, builder.value(name), root, depth - 1)
        if inner is None:
            return None
        operands.append(inner)
    if node.op == "function":
        return substitute(node["expression"], operands[0])
    if node.op == "clip":
        return _limited(operands[0], *node["clamp"])
    return operands[0] if node.op == "identity" else f"({operands[0]}) {_BINARY[node.op]} ({operands[1]})"


def _limited(x: str, low: float, high: float) -> str:
    infinite = float("inf")
    if low != -infinite:
        x = f"max({x}, {low!r})"
    return x if high == infinite else f"min({x}, {high!r})"
