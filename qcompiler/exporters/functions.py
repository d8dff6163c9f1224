"""Emitters of functions of one number: their expression, operator by operator, or a table of results.

A lookup of the integer stage is written as the expression that its table was made from, where that is defined everywhere and
ONNX has the words for it.
"""

from __future__ import annotations

import ast
from typing import Final

import numpy as np

from qcompiler.exporters.call import Call
from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import Array, Node
from qcompiler.ops.functions import evaluate, limited_expression

CALLS: Final = {
    "abs": "Abs",
    "atan": "Atan",
    "ceil": "Ceil",
    "clip": "Clip",
    "cos": "Cos",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "gt": "Greater",
    "log": "Log",
    "max": "Max",
    "min": "Min",
    "pow": "Pow",
    "relu": "Relu",
    "round": "Round",
    "sigmoid": "Sigmoid",
    "sign": "Sign",
    "sin": "Sin",
    "softplus": "Softplus",
    "sqrt": "Sqrt",
    "tan": "Tan",
    "tanh": "Tanh",
}
"""The ONNX operator of each name of the expression language (``qcompiler.ops.functions.FUNCTIONS``)."""

OPERATIONS: Final[dict[type[ast.operator], str]] = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Div: "Div"}


def unknown_names(node: Node) -> list[str]:
    """The names in the node's expression, if it has one, that ONNX has no operator for."""
    parts = ast.walk(ast.parse(node.get("expression") or "x", mode="eval"))
    called = dict.fromkeys(part.func.id for part in parts if isinstance(part, ast.Call) and isinstance(part.func, ast.Name))
    return [name for name in called if name not in CALLS]


def function(call: Call) -> str:
    """The expression."""
    return call.bounded(_expression(call, limited_expression(call.node)))


def lookup(call: Call) -> str:
    """The expression, or Gather from the table of real results."""
    expression = call.node.get("expression")
    known = expression is not None and not unknown_names(call.node)
    if known and np.isfinite(_at_all_codes(call, expression)).all():
        return call.apart(_expression(call, expression), call.output)
    x, name = call.graph.values[call.node.inputs[0]], call.output.name
    results = [call.real(call.output, int(code)) for code in call.constant(1)]
    steps = call.helper("Div", [call.operand(0), call.number("unit", x.scale or 1.0)])
    codes = call.to_integer(call.helper("Add", [steps, call.number("first", float(x.zero or 0))]))
    return call.emit("Gather", [call.builder.initializer(f"{name}.results", results), codes])


def _at_all_codes(call: Call, expression: str) -> Array:
    import torch

    x = call.graph.values[call.node.inputs[0]]
    assert isinstance(x.type.dtype, IntegerType)
    reals = [call.real(x, code) for code in range(x.type.dtype.minimum, x.type.dtype.maximum + 1)]
    results: Array = evaluate(expression, torch.tensor(reals, dtype=torch.float32)).numpy()
    return results


def _expression(call: Call, expression: str) -> str:
    """The tensor with the expression of the node's operand; the outermost operator gets the layer's name."""
    result = _walk(call, ast.parse(expression, mode="eval").body, outermost=True)
    if isinstance(result, str):
        return result
    nothing = call.helper("Mul", [call.operand(0), call.number("nothing", 0.0)])
    return call.emit("Add", [nothing, call.number("value", result)])


def _walk(call: Call, part: ast.expr, outermost: bool = False) -> str | float:
    """The tensor of a part of the expression, or its value where it does not depend on x."""
    if isinstance(part, ast.Name):
        return call.operand(0)
    if isinstance(part, ast.Constant):
        assert isinstance(part.value, int | float)
        return float(part.value)
    if isinstance(part, ast.UnaryOp):
        inner = _walk(call, part.operand)
        if isinstance(part.op, ast.UAdd):
            return inner
        return call.last("Neg", [inner], outermost) if isinstance(inner, str) else -inner
    if isinstance(part, ast.BinOp):
        left, right = _walk(call, part.left), _walk(call, part.right)
        op = OPERATIONS[type(part.op)]
        if not isinstance(left, str) and not isinstance(right, str):
            return {"Add": left + right, "Sub": left - right, "Mul": left * right, "Div": left / (right or np.nan)}[op]
        return call.last(op, [_tensor(call, left), _tensor(call, right)], outermost)
    assert isinstance(part, ast.Call)
    assert isinstance(part.func, ast.Name)
    operands = [_tensor(call, _walk(call, operand)) for operand in part.args]
    y = call.last(CALLS[part.func.id], operands, outermost)
    return call.to_float(y) if part.func.id == "gt" else y


def _tensor(call: Call, x: str | float) -> str:
    return x if isinstance(x, str) else call.number("number", x)
