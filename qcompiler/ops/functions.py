"""Functions of one number: any expression of x in float, a table of codes in the integer stage.

An expression is Python's syntax with ``x``, numbers, ``+ - * /`` and the names of :data:`FUNCTIONS`: SiLU is
``x * sigmoid(x)``. Its meaning in float is torch's; table entries are computed with 200 bits (mpmath) and rounded half up, so
that they are the same on every machine.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from typing_extensions import override

from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import Array, Node, TensorType
from qcompiler.ops.operator import FLOAT_STAGES, INTEGER_STAGE, Operand, Operator, TypeRuleError, require

if TYPE_CHECKING:
    import torch

PRECISION_BITS: Final = 200
LARGEST_EXPONENT: Final = 1 << 16
"""Beyond it exp is infinite or 0: e^65536 is beyond every float, and mpmath would compute numbers of any length."""


@dataclass(frozen=True)
class Primitive:
    """One name of the expression language: in torch, in mpmath, and how many operands it takes."""

    torch: Callable[..., Any]
    exact: Callable[..., Any]
    operands: int = 1


def _torch(name: str) -> Callable[..., Any]:
    def call(*operands: Any) -> Any:
        import torch

        return getattr(torch, name)(*operands)

    return call


def _mp(name: str) -> Callable[..., Any]:
    def call(*operands: Any) -> Any:
        import mpmath

        return getattr(mpmath, name)(*operands)

    return call


def _real(name: str) -> Callable[..., Any]:
    """A function of mpmath where it is real, NaN where it would be complex."""

    def call(*operands: Any) -> Any:
        import mpmath

        y = getattr(mpmath, name)(*operands)
        return mpmath.nan if isinstance(y, mpmath.mpc) else y

    return call


def _exp(x: Any) -> Any:
    import mpmath

    if abs(x) > LARGEST_EXPONENT:
        return mpmath.inf if x > 0 else mpmath.mpf(0)
    return mpmath.exp(x)


def _softplus(x: Any) -> Any:
    from torch.nn import functional

    return functional.softplus(x)


def _round_half_even(x: Any) -> Any:
    import mpmath

    low = mpmath.floor(x)
    rest = x - low
    return low + (rest > 0.5 or (rest == 0.5 and int(low) % 2 == 1))


def _clip(x: Any, low: float, high: float) -> Any:
    return min(max(x, low), high)


FUNCTIONS: Final[Mapping[str, Primitive]] = {
    "abs": Primitive(_torch("abs"), abs),
    "atan": Primitive(_torch("atan"), _mp("atan")),
    "ceil": Primitive(_torch("ceil"), _mp("ceil")),
    "clip": Primitive(_torch("clamp"), _clip, 3),
    "cos": Primitive(_torch("cos"), _mp("cos")),
    "erf": Primitive(_torch("erf"), _mp("erf")),
    "exp": Primitive(_torch("exp"), _exp),
    "floor": Primitive(_torch("floor"), _mp("floor")),
    "gt": Primitive(lambda x, limit: (x > limit).to(x.dtype), lambda x, limit: int(x > limit), 2),
    "log": Primitive(_torch("log"), _real("log")),
    "max": Primitive(lambda x, limit: x.clamp(min=limit), max, 2),
    "min": Primitive(lambda x, limit: x.clamp(max=limit), min, 2),
    "pow": Primitive(_torch("pow"), _real("power"), 2),
    "relu": Primitive(_torch("relu"), lambda x: max(x, 0)),
    "round": Primitive(_torch("round"), _round_half_even),
    "sigmoid": Primitive(_torch("sigmoid"), lambda x: 1 / (1 + _exp(-x))),
    "sign": Primitive(_torch("sign"), _mp("sign")),
    "sin": Primitive(_torch("sin"), _mp("sin")),
    "softplus": Primitive(_softplus, lambda x: x if x > LARGEST_EXPONENT else _mp("log1p")(_exp(x))),
    "sqrt": Primitive(_torch("sqrt"), _real("sqrt")),
    "tan": Primitive(_torch("tan"), _mp("tan")),
    "tanh": Primitive(_torch("tanh"), _mp("tanh")),
}
"""A comparison's second operand and limits are numbers; half-way cases of ``round`` go to the even number."""

NAMED: Final[Mapping[str, Callable[..., str]]] = {
    "celu": lambda alpha=1.0: f"max(x, 0) + {alpha!r} * (exp(min(x, 0) / {alpha!r}) - 1)",
    "elu": lambda alpha=1.0: f"max(x, 0) + {alpha!r} * (exp(min(x, 0)) - 1)",
    "gelu": lambda: "0.5 * x * (1 + erf(x * 0.7071067811865476))",
    "gelu_tanh": lambda: "0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))",
    "hard_sigmoid": lambda alpha=1 / 6, beta=0.5: f"clip({alpha!r} * x + {beta!r}, 0, 1)",
    "hard_swish": lambda: "x * clip(x + 3, 0, 6) / 6",
    "mish": lambda: "x * tanh(softplus(x))",
    "selu": lambda alpha=1.6732632423543772, gamma=1.0507009873554805: (
        f"{gamma!r} * (max(x, 0) + {alpha!r} * (exp(min(x, 0)) - 1))"
    ),
    "silu": lambda: "x * sigmoid(x)",
    "softsign": lambda: "x / (1 + abs(x))",
}
"""Common activations by the field's names, with their parameters."""

_OPERATIONS: Final = (ast.Add, ast.Sub, ast.Mult, ast.Div)


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> Any:
    """The code of a checked expression; TypeRuleError for anything outside of the language."""
    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError as problem:
        raise TypeRuleError(f"function: {expression!r} is no expression: {problem.msg}") from None
    called = set()
    for part in ast.walk(tree):
        if isinstance(part, ast.Call):
            known = isinstance(part.func, ast.Name) and part.func.id in FUNCTIONS
            require(known and not part.keywords, f"function: {expression!r} calls what is not known")
            assert isinstance(part.func, ast.Name)
            wanted = FUNCTIONS[part.func.id].operands
            require(len(part.args) == wanted, f"function: {part.func.id} takes {wanted} operands, not {len(part.args)}")
            called.add(part.func)
        elif isinstance(part, ast.Name):
            require(part.id == "x" or part in called, f"function: {expression!r} names {part.id!r}")
        elif isinstance(part, ast.Constant):
            require(type(part.value) in (int, float), f"function: {expression!r} has the constant {part.value!r}")
        else:
            legal = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.USub, ast.UAdd, ast.Load, *_OPERATIONS)
            require(isinstance(part, legal), f"function: {expression!r} has {type(part).__name__}")
    return compile(tree, "<expression>", "eval")


def evaluate(expression: str, x: torch.Tensor) -> torch.Tensor:
    """The expression of a tensor, differentiable where its parts are."""
    names = {name: primitive.torch for name, primitive in FUNCTIONS.items()}
    result = eval(_compiled(expression), {"__builtins__": {}, **names}, {"x": x})
    return x.new_full(x.shape, float(result)) if isinstance(result, int | float) else result


def evaluate_exactly(expression: str, numbers: Sequence[Any]) -> list[Any]:
    """The expression of mpmath numbers: a real number, an infinity, or None where it is not defined."""
    import mpmath

    code = _compiled(expression)
    names = {name: primitive.exact for name, primitive in FUNCTIONS.items()}
    results: list[Any] = []
    for x in numbers:
        try:
            y = mpmath.mpmathify(eval(code, {"__builtins__": {}, **names}, {"x": x}))
        except (ZeroDivisionError, ValueError):
            y = mpmath.nan
        results.append(None if mpmath.isnan(y) else y)
    return results


def function_table(
    expression: str, x_type: IntegerType, x_scale: float, x_zero: int, y_type: IntegerType, y_scale: float, y_zero: int
) -> Array:
    """The output code for every input code, int64 ``[2^bits of x]``: exact values rounded half up and limited to the type.

    Where the expression is not defined the entry is the zero point.
    """
    import mpmath

    with mpmath.workprec(PRECISION_BITS):
        numbers = [mpmath.mpf(x_scale) * (code - x_zero) for code in range(x_type.minimum, x_type.maximum + 1)]
        entries: list[int] = []
        for y in evaluate_exactly(expression, numbers):
            if y is None:
                entries.append(y_zero)
            elif mpmath.isinf(y):
                entries.append(y_type.maximum if y > 0 else y_type.minimum)
            else:
                code = int(mpmath.floor(y / mpmath.mpf(y_scale) + mpmath.mpf(0.5))) + y_zero
                entries.append(min(max(code, y_type.minimum), y_type.maximum))
    return np.array(entries, dtype=np.int64)


def clipped(expression: str, low: float, high: float) -> str:
    """``expression`` with limits."""
    if low == 0 and math.isinf(high):
        return f"relu({expression})"
    if math.isinf(high):
        return f"max({expression}, {low!r})" if not math.isinf(low) else expression
    return f"clip({expression}, {low!r}, {high!r})" if not math.isinf(low) else f"min({expression}, {high!r})"


def limited_expression(node: Node) -> str:
    """What a function node computes, its clamp included."""
    limits, expression = node.get("clamp"), str(node["expression"])
    return expression if limits is None else clipped(expression, *limits)


class Function(Operator):
    """``function(x, expression=, clamp=)``."""

    name = "function"
    stages = FLOAT_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) == 1, f"function takes 1 operand, not {len(operands)}")
        _compiled(node["expression"])
        return operands[0].type

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return evaluate(limited_expression(node), inputs[0])


class Lookup(Operator):
    """``lookup(x, table [2^bits of x], expression=)``: ``table[x]``; the expression is what the table was made from."""

    name = "lookup"
    stages = INTEGER_STAGE

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) == 2, f"lookup takes 2 operands, not {len(operands)}")
        x, table = operands[0].type, operands[1].type
        assert isinstance(x.dtype, IntegerType)
        require(x.dtype.bits <= 8 and not x.dtype.signed, f"lookup reads unsigned codes of at most 8 bits, not {x}")
        require(table.shape == (1 << x.dtype.bits,), f"lookup: the table {table} does not have an entry for each code of {x}")
        return TensorType(table.dtype, x.shape)

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        return inputs[1][inputs[0]]
