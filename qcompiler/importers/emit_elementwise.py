"""Element-by-element operators: functions of one tensor, limits, and two tensors of which one may be constant."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from qcompiler.importers.builder import Known, Layer, OriginError, UnsupportedError, dims
from qcompiler.importers.expressions import of_common_operand
from qcompiler.importers.operands import INFINITY, known, per_sample, scalar, sizes, value
from qcompiler.ir.graph import Value


def function(layer: Layer, x: object, expression: str, suffix: str = "") -> Value:
    """A function of one tensor, as an expression of x in the language of ``qcompiler.ops.functions``."""
    return layer.emit("function", [value(x)], suffix, expression=expression)


def clip(layer: Layer, x: object, low: float | None, high: float | None) -> Value:
    """Limits; None stands for none."""
    limits = (-INFINITY if low is None else float(low), INFINITY if high is None else float(high))
    return layer.emit("clip", [value(x)], clamp=limits)


def binary(layer: Layer, op: str, a: object, b: object, suffix: str = "") -> Value:
    """add, sub, mul, maximum or minimum of two tensors of which one may be a constant."""
    if not isinstance(a, Value) and not isinstance(b, Value):
        value(a)
        value(b)
    if op == "mul" and a is b:
        return function(layer, a, "x * x", suffix)
    rank = max(len(x.type.shape) for x in (a, b) if isinstance(x, Value))
    first: Value | Known = per_sample(layer, a, rank) if isinstance(a, Known) else _unexpanded(layer, value(a), b)
    second: Value | Known = per_sample(layer, b, rank) if isinstance(b, Known) else _unexpanded(layer, value(b), first)
    return layer.emit(op, [first, second], suffix)


def _unexpanded(layer: Layer, x: Value, other: object) -> Value:
    """What ``x`` was before it was expanded to the shape of ``other``: the operator broadcasts by itself."""
    rank = len(x.type.shape)
    while isinstance(other, Value) and (node := layer.builder.producer(x)) is not None and node.op == "take":
        source, axis = layer.builder.value(node.inputs[0]), node["axis"]
        wanted = other.type.shape[axis - rank :][:1] if len(other.type.shape) >= rank - axis else ()
        if source.type.shape[axis] != 1 or wanted != (x.type.shape[axis],):
            break
        x = source
    return x


def extremum(layer: Layer, op: str, operands: list[object]) -> Value:
    """The maximum or minimum of any number of tensors; numbers become limits."""
    numbers = [n for n in map(scalar, operands) if n is not None]
    tensors = [x for x in operands if scalar(x) is None]
    if not any(isinstance(x, Value) for x in tensors):
        raise UnsupportedError("all of its operands are constants")
    steps = len(tensors) - 1 + bool(numbers)
    result = tensors[0]
    if steps == 0:
        return layer.emit("identity", [value(result)])
    for index, x in enumerate(tensors[1:], 1):
        result = binary(layer, op, result, x, "" if index == steps else f".{index}")
    if not numbers:
        return value(result)
    return clip(layer, result, max(numbers), None) if op == "maximum" else clip(layer, result, None, min(numbers))


def total(layer: Layer, operands: list[object], factor: float = 1.0) -> Value:
    """The sum of any number of tensors, times a number."""
    steps = len(operands) - 1 + (factor != 1)
    result = operands[0]
    for index, x in enumerate(operands[1:], 1):
        result = binary(layer, "add", result, x, "" if index == steps else f".{index}")
    if factor != 1:
        return binary(layer, "mul", result, layer.known(np.array(factor, np.float32), "factor"))
    return layer.emit("identity", [value(result)]) if not steps else value(result)


def divide(layer: Layer, a: object, b: object) -> Value:
    """``a / b``: by a constant, of a constant, or by a function of a tensor."""
    if isinstance(b, Known):
        if not np.all(b.data):
            raise UnsupportedError("it divides by a constant that has zeros")
        return binary(layer, "mul", a, Known((1 / b.data.astype(np.float64)).astype(np.float32), f"{b.name}.reciprocal"))
    divisor = value(b)
    if (number := scalar(a)) is not None:
        return function(layer, divisor, f"{number!r} / x")
    if isinstance(a, Value) and (common := of_common_operand(layer.builder, a, divisor)) is not None:
        root, (dividend, by) = common
        return function(layer, root, f"({dividend}) / ({by})")
    if isinstance(a, Known):
        return binary(layer, "mul", function(layer, divisor, "1 / x", ".reciprocal"), a)
    divisor = _unexpanded(layer, divisor, a)
    node = layer.builder.producer(divisor)
    if node is not None and node.op == "function":
        expression = node["expression"]
    elif node is not None and node.op == "clip" and node["clamp"][0] > 0:
        low, high = node["clamp"]
        expression = f"max(x, {low!r})" if high == INFINITY else f"clip(x, {low!r}, {high!r})"
    else:
        why = "it divides by a tensor that is computed from the model's input and is no function of one tensor"
        raise OriginError(why, divisor)
    reciprocal = function(layer, layer.builder.value(node.inputs[0]), f"1 / ({expression})", ".reciprocal")
    return binary(layer, "mul", a, reciprocal)


def power(layer: Layer, a: object, b: object) -> Value:
    """``a ** b`` where one of the two is a number."""
    exponent, base = scalar(b), scalar(a)
    if isinstance(b, Known) and b.data.size and exponent is None and (b.data == b.data.reshape(-1)[0]).all():
        exponent = float(b.data.reshape(-1)[0])
        if dims(np.broadcast_shapes(b.data.shape, sizes(value(a)))) != dims(sizes(value(a))):
            exponent = None
    if exponent is not None:
        return function(layer, a, power_of_x(exponent))
    if base is not None and base > 0:
        return function(layer, b, f"pow({base!r}, x)")
    raise UnsupportedError("neither its base (above 0) nor its exponent is one constant number")


def power_of_x(exponent: float) -> str:
    """``x`` to a constant power."""
    simple = {0.0: "x * 0 + 1", 1.0: "x", 2.0: "x * x", 3.0: "x * x * x", 0.5: "sqrt(x)", -1.0: "1 / x", -0.5: "1 / sqrt(x)"}
    return simple.get(exponent, f"pow(x, {exponent!r})")


def threshold(limit: float, other: float) -> str:
    """``x`` above ``limit``, the number ``other`` elsewhere."""
    return f"x * gt(x, {limit!r}) + {other!r} * (1 - gt(x, {limit!r}))" if other else f"x * gt(x, {limit!r})"


def shrink(limit: float, bias: float) -> str:
    """``x - bias`` above ``limit``, ``x + bias`` below ``-limit``, 0 between."""
    if bias == limit >= 0:
        return f"max(x - {bias!r}, 0) + min(x + {bias!r}, 0)"
    return f"(x - {bias!r}) * gt(x, {limit!r}) + (x + {bias!r}) * gt(-x, {limit!r})"


def prelu(layer: Layer, x: object, slope: Known) -> Value:
    """PReLU; ``slope`` is one number, one for each channel ``[C]``, or of a shape that numpy broadcasts to that of x."""
    x = value(x)
    rank, data = len(x.type.shape), slope.data
    channels = sizes(x)[0] if rank > 1 else 1
    whole = (1,) * (rank - data.ndim) + data.shape
    if data.size == 1 or data.shape == (channels,) or (whole[:2] == (1, channels) and prod(whole) == channels):
        return layer.emit("prelu", [x, Known(data.reshape(-1), slope.name)])
    positive = layer.emit("clip", [x], ".positive", clamp=(0.0, INFINITY))
    negative = layer.emit("clip", [x], ".negative", clamp=(-INFINITY, 0.0))
    return binary(layer, "add", positive, binary(layer, "mul", negative, slope, ".product"))


def leaky_relu(layer: Layer, x: object, slope: float) -> Value:
    """PReLU with one slope."""
    return prelu(layer, x, layer.known(np.array([slope], np.float32), "slope"))


def local_response_norm(layer: Layer, x: object, size: int, alpha: float, beta: float, bias: float) -> Value:
    """``x / (bias + alpha / size * sum of x * x over size channels) ** beta``: the sum is a 1x1 convolution by a band matrix."""
    x = value(x)
    shape = x.type.shape
    if len(shape) < 3:
        raise UnsupportedError(f"only tensors [N,C,...] with at least one more axis are supported, not {x.type}")
    channels = sizes(x)[0]
    index = np.arange(channels)
    distance = index[None, :] - index[:, None]
    band = ((distance >= -((size - 1) // 2)) & (distance <= size // 2)).astype(np.float32) * np.float32(alpha / size)
    weight = layer.known(band[:, :, None, None], "band")
    constant = layer.known(np.full(channels, bias, np.float32), "bias")
    image = x if len(shape) == 4 else layer.emit("reshape", [x], ".image", shape=(*shape[:2], 1, prod(sizes(x)[1:])))
    square = function(layer, image, "x * x", ".square")
    ones: dict[str, tuple[int, ...]] = {"strides": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
    sums = layer.emit("conv2d", [square, weight, constant], ".sum", groups=1, **ones)
    factor = function(layer, sums, power_of_x(-beta), ".factor")
    if image is x:
        return binary(layer, "mul", x, factor)
    return layer.emit("reshape", [binary(layer, "mul", image, factor, ".product")], shape=shape)


def batch_norm(layer: Layer, x: object, constants: Sequence[object], epsilon: float) -> Value:
    """Batch normalization; ``constants`` are gamma, beta, mean and variance, gamma and beta may be None."""
    x = value(x)
    if constants[2] is None or constants[3] is None:
        raise UnsupportedError("it has no running statistics")
    if len(x.type.shape) < 2:
        raise UnsupportedError(f"{x.type} has no channels")
    names = ("gamma", "beta", "mean", "variance")
    channels = sizes(x)[0]
    default = {"gamma": np.ones(channels, np.float32), "beta": np.zeros(channels, np.float32)}
    given = [layer.known(default[n], n) if c is None else known(c, f"the {n}") for n, c in zip(names, constants, strict=True)]
    return layer.emit("batch_norm", [x, *given], epsilon=epsilon)
