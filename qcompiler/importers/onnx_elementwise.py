"""ONNX operators that work element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import numpy as np

from qcompiler.importers import emit_elementwise as emit
from qcompiler.importers import operands
from qcompiler.importers.builder import Known, UnsupportedError
from qcompiler.importers.emit_condition import Condition, compared, inverted, joined, truth_of
from qcompiler.importers.emit_where import where
from qcompiler.importers.onnx_call import Call, Handler, element_type
from qcompiler.ir.graph import Value
from qcompiler.ops.functions import NAMED


def _batch_norm(c: Call) -> Value:
    if c.flag("training_mode") or c.extra:
        raise UnsupportedError("it is in training mode; export the model for inference")
    if not c.flag("spatial", 1):
        raise UnsupportedError("spatial=0 is not supported")
    return emit.batch_norm(c.layer, c.x, c.inputs[1:5], c.get("epsilon", 1e-5))


def _binary(op: str) -> Handler:
    return lambda c: emit.binary(c.layer, op, *c.pair())


def _function(expression: str) -> Handler:
    return lambda c: emit.function(c.layer, c.operand(0), expression)


def _of_attributes(build: Callable[..., str], **defaults: float) -> Handler:
    """A function whose parameters are attributes."""

    def handler(c: Call) -> Value:
        return emit.function(c.layer, c.operand(0), build(*(float(c.get(name, default)) for name, default in defaults.items())))

    return handler


def _gelu(c: Call) -> Value:
    name = "gelu_tanh" if c.get("approximate", "none") == "tanh" else "gelu"
    return emit.function(c.layer, c.operand(0), NAMED[name]())


def _clip(c: Call) -> Value:
    limits: list[float | None] = []
    for index, name in ((1, "min"), (2, "max")):
        data = c.array(index, f"its operand {name!r}")
        limits.append(c.get(name) if data is None else float(data.reshape(-1)[0]))
    return emit.clip(c.layer, c.operand(0), *limits)


def _prelu(c: Call) -> Value:
    x, slope = c.pair()
    return emit.prelu(c.layer, x, operands.known(slope, "the slope"))


def _leaky_relu(c: Call) -> Value:
    return emit.leaky_relu(c.layer, c.operand(0), c.get("alpha", 0.01))


def _extremum(op: str) -> Handler:
    return lambda c: emit.extremum(c.layer, op, c.inputs)


def _sum(c: Call) -> Value:
    return emit.total(c.layer, c.inputs)


def _mean(c: Call) -> Value:
    return emit.total(c.layer, c.inputs, 1 / len(c.inputs))


def _divide(c: Call) -> Value:
    return emit.divide(c.layer, *c.pair())


def _power(c: Call) -> Value:
    return emit.power(c.layer, *c.pair())


def _identity(c: Call) -> Value:
    return c.layer.emit("identity", [operands.value(c.operand(0))])


def _dropout(c: Call) -> Value:
    training = c.array(2, "its operand 'training_mode'")
    if c.extra or (training is not None and bool(np.any(training))):
        raise UnsupportedError("it is in training mode; export the model for inference")
    return _identity(c)


def _compared(comparison: str) -> Handler:
    return lambda c: compared(c.layer, c.operand(0), comparison, c.operand(1))


def _joined(how: Literal["and", "or", "xor"]) -> Handler:
    return lambda c: joined(c.layer, how, c.operand(0), c.operand(1))


def _not(c: Call) -> Condition:
    return inverted(c.layer, c.operand(0))


def _where(c: Call) -> Value:
    return where(c.layer, c.operand(0), c.operand(1), c.operand(2))


def cast(c: Call) -> Value | Condition:
    """Activations stay floats, indices whole, truth values become 0 and 1."""
    from onnx import TensorProto

    truth, kind = c.operand(0), c.get("to")
    if isinstance(truth, Condition):
        return truth if kind == TensorProto.BOOL else truth.numbers
    if kind == TensorProto.BOOL:
        return truth_of(c.layer, c.x)
    x = c.x
    whole = c.layer.builder.integer_inputs | c.layer.builder.index_values
    floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    integers = (TensorProto.INT32, TensorProto.INT64)
    if x.name in whole and kind in integers:
        return x
    if x.name in whole or kind not in floats:
        raise UnsupportedError(f"it converts activations to {element_type(kind)}")
    return x


def _cast_like(c: Call) -> Value:
    like = c.operand(1)
    if isinstance(like, Known) and str(like.data.dtype) not in ("float32", "float64", "float16", "bfloat16"):
        raise UnsupportedError(f"it converts activations to {like.data.dtype}")
    return operands.value(c.operand(0))


OPERATORS: Final[dict[str, Handler]] = {
    "Abs": _function("abs(x)"),
    "Acosh": _function("log(x + sqrt(x * x - 1))"),
    "Add": _binary("add"),
    "And": _joined("and"),
    "Asinh": _function("log(x + sqrt(x * x + 1))"),
    "Atan": _function("atan(x)"),
    "Atanh": _function("0.5 * log((1 + x) / (1 - x))"),
    "BatchNormalization": _batch_norm,
    "CastLike": _cast_like,
    "Ceil": _function("ceil(x)"),
    "Celu": _of_attributes(NAMED["celu"], alpha=1.0),
    "Clip": _clip,
    "Cos": _function("cos(x)"),
    "Cosh": _function("(exp(x) + exp(-x)) / 2"),
    "Div": _divide,
    "Dropout": _dropout,
    "Elu": _of_attributes(NAMED["elu"], alpha=1.0),
    "Equal": _compared("eq"),
    "Erf": _function("erf(x)"),
    "Exp": _function("exp(x)"),
    "Floor": _function("floor(x)"),
    "Gelu": _gelu,
    "Greater": _compared("gt"),
    "GreaterOrEqual": _compared("ge"),
    "HardSigmoid": _of_attributes(NAMED["hard_sigmoid"], alpha=0.2, beta=0.5),
    "HardSwish": _function(NAMED["hard_swish"]()),
    "Identity": _identity,
    "LeakyRelu": _leaky_relu,
    "Less": _compared("lt"),
    "LessOrEqual": _compared("le"),
    "Log": _function("log(x)"),
    "Max": _extremum("maximum"),
    "Mean": _mean,
    "Min": _extremum("minimum"),
    "Mish": _function(NAMED["mish"]()),
    "Mul": _binary("mul"),
    "Neg": _function("-x"),
    "Not": _not,
    "Or": _joined("or"),
    "PRelu": _prelu,
    "Pow": _power,
    "Reciprocal": _function("1 / x"),
    "Relu": lambda c: emit.clip(c.layer, c.operand(0), 0.0, None),
    "Round": _function("round(x)"),
    "Selu": _of_attributes(NAMED["selu"], alpha=1.6732632423543772, gamma=1.0507009873554805),
    "Shrink": _of_attributes(emit.shrink, lambd=0.5, bias=0.0),
    "Sigmoid": _function("sigmoid(x)"),
    "Sign": _function("sign(x)"),
    "Sin": _function("sin(x)"),
    "Sinh": _function("(exp(x) - exp(-x)) / 2"),
    "Softplus": _function("softplus(x)"),
    "Softsign": _function(NAMED["softsign"]()),
    "Sqrt": _function("sqrt(x)"),
    "Sub": _binary("sub"),
    "Sum": _sum,
    "Swish": _of_attributes(lambda alpha: NAMED["silu"]() if alpha == 1 else f"x * sigmoid({alpha!r} * x)", alpha=1.0),
    "Tan": _function("tan(x)"),
    "Tanh": _function("tanh(x)"),
    "ThresholdedRelu": _of_attributes(lambda alpha: emit.threshold(alpha, 0.0), alpha=1.0),
    "Where": _where,
    "Xor": _joined("xor"),
}
