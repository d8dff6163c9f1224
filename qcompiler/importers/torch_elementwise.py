"""aten operators that work element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np

from qcompiler.importers import emit_elementwise as emit
from qcompiler.importers import operands
from qcompiler.importers.builder import Known, Missing, UnsupportedError
from qcompiler.importers.emit_condition import Condition, compared, inverted, joined, truth_of
from qcompiler.importers.emit_movement import split
from qcompiler.importers.emit_where import where
from qcompiler.importers.torch_call import Call, Handler, first_of, table
from qcompiler.ir.graph import Value
from qcompiler.ops.functions import NAMED


def _batch_norm(c: Call) -> Value:
    if c.get("training", False):
        raise UnsupportedError("it normalizes by the statistics of its batch; call model.eval() before the export")
    constants = [c["weight"], c["bias"], c["running_mean"], c["running_var"]]
    return emit.batch_norm(c.layer, c.x, constants, c["eps"])


def _clip(low: float | str | None, high: float | str | None) -> Handler:
    def handler(c: Call) -> Value:
        limits = [c[limit] if isinstance(limit, str) else limit for limit in (low, high)]
        numbers = [operands.scalar(x) if isinstance(x, Known) else x for x in limits]
        if any(n is None and x is not None for n, x in zip(numbers, limits, strict=True)):
            y: object = c.x
            for op, limit, suffix in (("maximum", limits[0], ".low"), ("minimum", limits[1], "")):
                if limit is not None:
                    known = limit if isinstance(limit, Known | Value) else c.layer.known(np.array(limit, np.float32), op)
                    y = emit.binary(c.layer, op, y, known, suffix)
            return operands.value(y)
        return emit.clip(c.layer, c.x, *numbers)

    return handler


def _function(expression: str) -> Handler:
    return lambda c: emit.function(c.layer, c.x, expression)


def _of_arguments(build: Callable[..., str], *names: str) -> Handler:
    """A function whose parameters are arguments."""

    def handler(c: Call) -> Value:
        return emit.function(c.layer, c.x, build(*(float(c[name]) for name in names)))

    return handler


def _elu(alpha: float, scale: float, input_scale: float) -> str:
    if scale == input_scale == 1:
        return NAMED["elu"](alpha)
    return f"{scale!r} * (max(x, 0) + {alpha!r} * (exp(min(x, 0) * {input_scale!r}) - 1))"


def _softplus(beta: float, threshold: float) -> str:
    # Above the threshold torch gives x itself, which softplus is there but for exp(-threshold).
    return "softplus(x)" if beta == 1 else f"softplus({beta!r} * x) / {beta!r}"


def _gelu(c: Call) -> Value:
    return emit.function(c.layer, c.x, NAMED["gelu_tanh" if c["approximate"] == "tanh" else "gelu"]())


def _prelu(c: Call) -> Value:
    return emit.prelu(c.layer, c.x, operands.known(c["weight"], "the slope"))


def _leaky_relu(c: Call) -> Value:
    return emit.leaky_relu(c.layer, c.x, c["negative_slope"])


def _rrelu(c: Call) -> Value:
    if c["training"]:
        raise UnsupportedError("it draws random slopes; call model.eval() before the export")
    return emit.leaky_relu(c.layer, c.x, (c["lower"] + c["upper"]) / 2)


def _scaled(c: Call, x: Any, factor: float, what: str) -> Any:
    """``x * factor``."""
    if factor == 1 or isinstance(x, Known):
        return x if factor == 1 else operands.scaled(x, factor)
    return emit.binary(c.layer, "mul", x, c.layer.known(np.array(factor, np.float32), what), f".{what}")


def _add(c: Call) -> Value:
    return emit.binary(c.layer, "add", c.tensor("self"), _scaled(c, c.tensor("other"), c["alpha"], "alpha"))


def _sub(c: Call) -> Value:
    return emit.binary(c.layer, "sub", c.tensor("self"), _scaled(c, c.tensor("other"), c["alpha"], "alpha"))


def _rsub(c: Call) -> Value:
    return emit.binary(c.layer, "sub", c.tensor("other"), _scaled(c, c.operand, c["alpha"], "alpha"))


def _mul(c: Call) -> Value:
    return emit.binary(c.layer, "mul", c.tensor("self"), c.tensor("other"))


def _div(c: Call) -> Value:
    if c.get("rounding_mode") is not None:
        raise UnsupportedError(f"rounding_mode={c['rounding_mode']!r} is not supported")
    return emit.divide(c.layer, c.tensor("self"), c.tensor("other"))


def _pow(c: Call) -> Value:
    return emit.power(c.layer, c.tensor("self"), c.tensor("exponent"))


def _extremum(op: str) -> Handler:
    return lambda c: emit.extremum(c.layer, op, [c.tensor("self"), c.tensor("other")])


def _addcmul(c: Call) -> Value:
    product = emit.binary(c.layer, "mul", c["tensor1"], c["tensor2"], ".product")
    return emit.binary(c.layer, "add", c.tensor("self"), _scaled(c, product, c["value"], "value"))


def _glu(c: Call) -> Value:
    axis = operands.inner_axis(c.x, c["dim"], "splits")
    half = c.x.type.with_batch(1)[axis] // 2
    names = [f"{c.layer.name}.{part}" for part in ("value", "gate")]
    x, gate = split(c.layer, c.x, [half, half], axis, names)
    return emit.binary(c.layer, "mul", x, emit.function(c.layer, gate, "sigmoid(x)", ".sigmoid"))


def _remainder(c: Call) -> Value:
    divisor = float(c["other"])
    return emit.function(c.layer, c.x, f"x - {divisor!r} * floor(x / {divisor!r})")


def _logit(c: Call) -> Value:
    limit = c["eps"] or 0.0
    x = "x" if c["eps"] is None else f"clip(x, {limit!r}, {1 - limit!r})"
    return emit.function(c.layer, c.x, f"log({x} / (1 - {x}))")


def _heaviside(c: Call) -> Value:
    middle = operands.scalar(c["values"])
    if middle is None:
        raise UnsupportedError("what it gives for 0 is not one number")
    return emit.function(c.layer, c.x, f"gt(x, 0.0) + {middle!r} * (1 - gt(x, 0.0) - gt(-x, 0.0))")


def _lerp(c: Call) -> Value:
    difference = emit.binary(c.layer, "sub", c["end"], c.operand, ".difference")
    return emit.binary(c.layer, "add", c.tensor("self"), emit.binary(c.layer, "mul", difference, c.tensor("weight"), ".share"))


def _compared(comparison: str) -> Handler:
    return lambda c: compared(c.layer, c.operand, comparison, c.tensor("other"))


def _joined(how: Literal["and", "or", "xor"]) -> Handler:
    return lambda c: joined(c.layer, how, c.operand, c["other"])


def _not(c: Call) -> Condition:
    return inverted(c.layer, c.operand)


def _where(c: Call) -> Value:
    return where(c.layer, c["condition"], c.tensor("self"), c.tensor("other"))


def _masked_fill(c: Call) -> Value:
    return where(c.layer, c["mask"], c.tensor("value"), c.operand)


def _dropout(c: Call) -> Value | Known:
    if c["train"]:
        raise UnsupportedError("it drops values at random; call model.eval() before the export")
    return c.operand if isinstance(c.operand, Known) else c.layer.emit("identity", [c.x])


def _native_dropout(c: Call) -> tuple[object, ...]:
    return _dropout(c), Missing(c.layer, "its mask is read")


def _same(c: Call) -> Value | Condition:
    if isinstance(c.operand, Condition):
        return c.operand if c.dtype == "bool" else c.operand.numbers
    if c.dtype == "bool":
        return truth_of(c.layer, c.x)
    whole = c.layer.builder.integer_inputs | c.layer.builder.index_values
    if c.x.name not in whole and c.dtype not in ("float32", "float64", "float16", "bfloat16"):
        raise UnsupportedError(f"it converts activations to {c.dtype}")
    if c.x.name in whole and c.dtype not in ("int32", "int64", "float32"):
        raise UnsupportedError(f"it converts whole numbers to {c.dtype}")
    return c.x


_SELU = NAMED["selu"]()
_EXPRESSIONS: Final = {
    "abs": "abs(x)",
    "atan": "atan(x)",
    "ceil": "ceil(x)",
    "cos": "cos(x)",
    "erf": "erf(x)",
    "exp": "exp(x)",
    "exp2": "pow(2.0, x)",
    "expm1": "exp(x) - 1",
    "floor": "floor(x)",
    "frac": "x - sign(x) * floor(abs(x))",
    "hardsigmoid": "clip(x + 3, 0, 6) / 6",
    "hardswish": NAMED["hard_swish"](),
    "log": "log(x)",
    "log10": "log(x) / 2.302585092994046",
    "log1p": "log(1 + x)",
    "log2": "log(x) / 0.6931471805599453",
    "log_sigmoid": "-softplus(-x)",
    "mish": NAMED["mish"](),
    "neg": "-x",
    "reciprocal": "1 / x",
    "round": "round(x)",
    "rsqrt": "1 / sqrt(x)",
    "selu": _SELU,
    "sigmoid": "sigmoid(x)",
    "sign": "sign(x)",
    "silu": NAMED["silu"](),
    "sin": "sin(x)",
    "sqrt": "sqrt(x)",
    "square": "x * x",
    "tan": "tan(x)",
    "tanh": "tanh(x)",
    "trunc": "sign(x) * floor(abs(x))",
}

OPERATORS: Final[dict[str, Handler]] = table(
    {
        **{f"{name}.default {name}_.default": _function(expression) for name, expression in _EXPRESSIONS.items()},
        "batch_norm.default": _batch_norm,
        "_native_batch_norm_legit_no_training.default": first_of(_batch_norm, "its statistics are read"),
        "relu.default relu_.default": _clip(0.0, None),
        "relu6.default relu6_.default": _clip(0.0, 6.0),
        "hardtanh.default hardtanh_.default": _clip("min_val", "max_val"),
        "clamp.default clamp_.default clip.default clip_.default clamp.Tensor": _clip("min", "max"),
        "clamp_min.default clamp_min_.default clamp_min.Tensor": _clip("min", None),
        "clamp_max.default clamp_max_.default clamp_max.Tensor": _clip(None, "max"),
        "elu.default elu_.default": _of_arguments(_elu, "alpha", "scale", "input_scale"),
        "celu.default celu_.default": _of_arguments(NAMED["celu"], "alpha"),
        "softplus.default": _of_arguments(_softplus, "beta", "threshold"),
        "threshold.default threshold_.default": _of_arguments(emit.threshold, "threshold", "value"),
        "hardshrink.default": _of_arguments(lambda limit: emit.shrink(limit, 0.0), "lambd"),
        "softshrink.default": _of_arguments(lambda limit: emit.shrink(limit, limit), "lambd"),
        "log_sigmoid_forward.default": first_of(_function(_EXPRESSIONS["log_sigmoid"]), "its buffer is read"),
        "gelu.default gelu_.default": _gelu,
        "prelu.default _prelu_kernel.default": _prelu,
        "leaky_relu.default leaky_relu_.default": _leaky_relu,
        "rrelu.default rrelu_.default": _rrelu,
        "add.Tensor add_.Tensor add.Scalar add_.Scalar": _add,
        "sub.Tensor sub_.Tensor sub.Scalar sub_.Scalar": _sub,
        "rsub.Tensor rsub.Scalar": _rsub,
        "mul.Tensor mul_.Tensor mul.Scalar mul_.Scalar": _mul,
        "div.Tensor div_.Tensor div.Scalar div_.Scalar div.Tensor_mode div.Scalar_mode": _div,
        "pow.Tensor_Scalar pow_.Scalar pow.Scalar pow.Tensor_Tensor": _pow,
        "maximum.default max.other": _extremum("maximum"),
        "minimum.default min.other": _extremum("minimum"),
        **{f"{kind}.Scalar {kind}.Tensor": _compared(kind) for kind in ("gt", "ge", "lt", "le", "eq", "ne")},
        "logical_and.default bitwise_and.Tensor __and__.Tensor": _joined("and"),
        "logical_or.default bitwise_or.Tensor __or__.Tensor": _joined("or"),
        "logical_xor.default bitwise_xor.Tensor __xor__.Tensor": _joined("xor"),
        "logical_not.default bitwise_not.default": _not,
        "masked_fill.Scalar masked_fill.Tensor": _masked_fill,
        "where.self where.ScalarOther where.ScalarSelf": _where,
        "remainder.Scalar": _remainder,
        "logit.default": _logit,
        "heaviside.default": _heaviside,
        "addcmul.default": _addcmul,
        "glu.default": _glu,
        "lerp.Scalar lerp.Tensor": _lerp,
        "dropout.default dropout_.default feature_dropout.default alpha_dropout.default": _dropout,
        "native_dropout.default": _native_dropout,
        "clone.default contiguous.default detach.default detach_.default detach_copy.default alias.default": _same,
        "alias_copy.default lift_fresh_copy.default _to_copy.default to.dtype to.device to.dtype_layout": _same,
        "positive.default to.other type_as.default": _same,
    }
)
