"""Quantized ONNX models as float graphs with quantizers.

``QuantizeLinear`` and ``DequantizeLinear`` around an activation are one ``quantizer``, which limits to the numbers that have
codes, ``(lowest - zero) * scale`` to ``(highest - zero) * scale``: a value of its own, so that each reader gets what its own
quantizer gives. Codes of weights become floats. ``QLinearConv`` and the like become the float operators that they stand for,
with a quantizer behind. Whether codes are signed makes no difference, and a quantizer whose lowest code is zero is a ReLU too,
which tools leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from qcompiler.importers import (
    emit_elementwise,
    emit_movement,
    emit_reduction,
    onnx_convolution,
    onnx_elementwise,
    operands,
)
from qcompiler.importers.builder import Known, Layer, Merged, UnsupportedError
from qcompiler.importers.emit_quantizer import Quantization, quantizer
from qcompiler.importers.onnx_call import Call, Handler, element_type
from qcompiler.ir.graph import Array, Value

WIDTHS: Final = {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767)}
"""Types of codes, and of inputs that are codes, with the smallest and the largest one."""
_NARROW: Final = {"uint4": (0, 15), "int4": (-8, 7), "uint2": (0, 3), "int2": (-2, 1)}


@dataclass(frozen=True)
class Quantized:
    """A tensor of codes: the float value that they stand for, and how."""

    value: Value
    by: Quantization


def _code_limits(dtype: str) -> tuple[int, int]:
    limits = WIDTHS.get(dtype) or _NARROW.get(dtype)
    if limits is None:
        raise UnsupportedError(f"codes of type {dtype} are not supported")
    return limits


def _quantization(c: Call, scale_at: int, zero_at: int) -> Quantization:
    """How an activation is quantized, by two constant operands; one scale for the whole tensor."""
    scale, zero = c.array(scale_at, "the scale"), c.array(zero_at, "the zero point")
    if scale is None or scale.size != 1:
        raise UnsupportedError("activations need one scale for the whole tensor")
    dtype = str(zero.dtype) if zero is not None else _default_type(c)
    return Quantization(float(scale.reshape(-1)[0]), 0 if zero is None else int(zero.reshape(-1)[0]), *_code_limits(dtype))


def _default_type(c: Call) -> str:
    kind = c.get("output_dtype", 0)
    return element_type(kind) if kind else "uint8"


def codes(layer: Layer, x: Value, by: Quantization) -> Quantized:
    """``x`` quantized."""
    return Quantized(quantizer(layer, x, by), by)


def input_codes(layer: Layer, x: Value, dtype: str) -> Quantized:
    """An input that is a tensor of codes: ``x`` holds the codes themselves, so that those of the library are as many."""
    by = Quantization(1.0, 0, *_code_limits(dtype))
    return codes(layer, x, by)


def cast(c: Call) -> object:
    """Codes become the numbers that they are."""
    x, kind = c.operand(0), element_type(c.get("to"))
    if not isinstance(x, Quantized):
        return onnx_elementwise.cast(c)
    if kind not in ("float", "float16", "bfloat16", "double", "int32", "int64"):
        raise UnsupportedError(f"it converts codes to {kind}")
    return _reals(c.layer, x, 1.0, 0)


def _reals(layer: Layer, x: Quantized, scale: float, zero: int) -> Value:
    """What the codes of ``x`` stand for where their reader says ``scale`` and ``zero``: commonly those of their quantizer."""
    if (scale, zero) == (x.by.scale, x.by.zero):
        return x.value
    result = x.value
    offset, factor = (zero - x.by.zero) * x.by.scale, scale / x.by.scale
    if offset:
        result = emit_elementwise.binary(layer, "sub", result, layer.known(np.array(offset, np.float32), "zero"), ".centered")
    if factor != 1:
        result = emit_elementwise.binary(layer, "mul", result, layer.known(np.array(factor, np.float32), "scale"), ".scaled")
    return result


def _floats(c: Call, index: int = 0) -> Value:
    """The float value of codes at ``index``, which their scale and zero point follow."""
    x = c.operand(index)
    if not isinstance(x, Quantized):
        raise UnsupportedError("its operand is not the result of a quantizer")
    scale, zero = c.array(index + 1, "the scale"), c.array(index + 2, "the zero point")
    if scale is None or scale.size != 1 or (zero is not None and zero.size != 1):
        raise UnsupportedError("activations need one scale for the whole tensor")
    return _reals(c.layer, x, float(scale.reshape(-1)[0]), 0 if zero is None else int(zero.reshape(-1)[0]))


def _constant(c: Call, index: int, axis: int = 0) -> Known:
    """Constant codes at ``index``, followed by their scale and zero point, as floats; one scale for each slice of ``axis``."""
    x = operands.known(c.operand(index), "the weight")
    scale, zero = c.array(index + 1, "the scale of the weight"), c.array(index + 2, "the zero point of the weight")
    return _dequantized(x, scale, zero, axis)


def _dequantized(x: Known, scale: Array | None, zero: Array | None, axis: int) -> Known:
    if scale is None:
        raise UnsupportedError("its constant has no scale")

    def spread(numbers: Array) -> Array:
        if numbers.size == 1:
            return numbers.reshape(())
        return numbers.reshape([-1 if i == axis % x.data.ndim else 1 for i in range(x.data.ndim)])

    offset = 0.0 if zero is None else spread(zero.astype(np.float64))
    return Known(((x.data.astype(np.float64) - offset) * spread(scale.astype(np.float64))).astype(np.float32), x.name)


def _operand(c: Call, index: int) -> Value | Known:
    """Codes at ``index``, followed by scale and zero point: computed, or constant and then as floats."""
    x = c.operand(index)
    return _constant(c, index) if isinstance(x, Known) else _floats(c, index)


def _bias(x: Known | None, x_scale: float, weight_scale: Array) -> Known | None:
    """int32 codes of a bias: their scale is the product of the two others."""
    if x is None:
        return None
    return Known((x.data.astype(np.float64) * x_scale * weight_scale.reshape(-1)).astype(np.float32), x.name)


def _inner(c: Call, inputs: Sequence[object]) -> Call:
    """The float call inside of a quantized one."""
    return replace(c, inputs=list(inputs))


def _quantize(c: Call) -> Quantized:
    x = operands.value(c.operand(0))
    return codes(c.layer, x, _quantization(c, 1, 2))


def _dequantize(c: Call) -> Value:
    return _floats(c)


def _conv(c: Call) -> Quantized:
    by, to = _quantization(c, 1, 2), _quantization(c, 6, 7)
    scale = c.array(4, "the scale of the weight")
    assert scale is not None
    bias = _bias(operands.optional_known(c.operand(8), "the bias"), by.scale, scale)
    y = onnx_convolution.OPERATORS["Conv"](_inner(c, [_floats(c), _constant(c, 3), bias]))
    return codes(c.layer, operands.value(y), to)


def _matmul(c: Call) -> Quantized:
    y = emit_reduction.matmul(c.layer, _operand(c, 0), _matrix(c, 3))
    return codes(c.layer, operands.value(y), _quantization(c, 6, 7))


def _matrix(c: Call, index: int) -> Value | Known:
    return _constant(c, index, -1) if isinstance(c.operand(index), Known) else _floats(c, index)


def _gemm(c: Call) -> object:
    weight = _constant(c, 3, 0 if c.flag("transB") else -1)
    weight = Known(weight.data.T, weight.name) if c.flag("transB") else weight
    by, scale = _quantization(c, 1, 2), c.array(4, "the scale of B")
    assert scale is not None
    alpha = c.get("alpha", 1.0)
    bias = _bias(operands.optional_known(c.operand(6), "C"), by.scale * alpha, scale)
    y: Value | Merged = emit_reduction.biased_product(c.layer, _floats(c), weight, bias, alpha, 1.0)
    return y if c.operand(7) is None else codes(c.layer, operands.value(y), _quantization(c, 7, 8))


def _binary(op: str) -> Handler:
    def handler(c: Call) -> Quantized:
        y = emit_elementwise.binary(c.layer, op, _operand(c, 0), _operand(c, 3))
        return codes(c.layer, y, _quantization(c, 6, 7))

    return handler


def _unary(emit: Callable[[Call, Value], Value]) -> Handler:
    """An operator of (x, scale, zero point, output scale, output zero point)."""

    def handler(c: Call) -> Quantized:
        return codes(c.layer, emit(c, _floats(c)), _quantization(c, 3, 4))

    return handler


def _global_average(c: Call, x: Value) -> Value:
    _need_channels_first(c)
    return emit_reduction.reduce(c.layer, "mean", x, range(2, len(x.type.shape)), keepdims=True)


def _average(c: Call, x: Value) -> Value:
    _need_channels_first(c)
    return operands.value(onnx_convolution.OPERATORS["AveragePool"](_inner(c, [x])))


def _need_channels_first(c: Call) -> None:
    if c.flag("channels_last"):
        raise UnsupportedError("channels_last=1 is not supported")


def _reduce_mean(c: Call, x: Value) -> Value:
    return emit_reduction.reduce(c.layer, "mean", x, c.get("axes"), c.flag("keepdims", 1))


def _concat(c: Call) -> Quantized:
    parts = [_operand(c, index) for index in range(2, len(c.inputs), 3)]
    return codes(c.layer, emit_movement.concat(c.layer, parts, c.get("axis")), _quantization(c, 0, 1))


def _leaky_relu(c: Call, x: Value) -> Value:
    return emit_elementwise.leaky_relu(c.layer, x, c.get("alpha", 0.01))


def _of_codes(handler: Handler) -> Handler:
    """An operator that only moves codes, or picks some of them: the result has the operand's quantization."""

    def moved(c: Call) -> Any:
        first = next(x for x in c.inputs if isinstance(x, Quantized))
        inputs = [x.value if isinstance(x, Quantized) else x for x in c.inputs]
        if c.layer.operator == "Pad":  # what it fills with is a code too
            fill = c.array(2, "its operand 'constant_value'")
            code = 0.0 if fill is None or not fill.size else float(fill.reshape(-1)[0])
            real = c.layer.known(np.array((code - first.by.zero) * first.by.scale), "fill")
            inputs = [*(*inputs, None)[:2], real, *inputs[3:]]
        result = handler(_inner(c, inputs))
        if isinstance(result, tuple):
            return tuple(codes(c.layer, y, first.by) if isinstance(y, Value) else y for y in result)
        return codes(c.layer, result, first.by) if isinstance(result, Value) else result

    return moved


MOVES_CODES: Final = [
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "MaxPool",
    "Pad",
    "Relu",
    "ReduceMax",
    "ReduceMin",
    "Reshape",
    "Resize",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Concat",
]
"""Operators that may stand between a quantizer and its counterpart."""


def on_codes(operator: str, handler: Handler) -> Handler:
    """``handler`` for operands that are codes; UnsupportedError for operators that compute new numbers."""
    if operator not in MOVES_CODES:
        raise UnsupportedError("it reads codes of a quantized tensor; only QLinear operators and moves of elements do that")
    return _of_codes(handler)


def _microsoft(entries: dict[str, Handler]) -> dict[str, Handler]:
    return {f"com.microsoft.{name}": handler for name, handler in entries.items()}


OPERATORS: Final[dict[str, Handler]] = {
    "Cast": cast,
    "DequantizeLinear": _dequantize,
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QuantizeLinear": _quantize,
    **_microsoft(
        {
            "DequantizeLinear": _dequantize,
            "QGemm": _gemm,
            "QLinearAdd": _binary("add"),
            "QLinearAveragePool": _unary(_average),
            "QLinearConcat": _concat,
            "QLinearGlobalAveragePool": _unary(_global_average),
            "QLinearLeakyRelu": _unary(_leaky_relu),
            "QLinearMul": _binary("mul"),
            "QLinearReduceMean": _unary(_reduce_mean),
            "QLinearSigmoid": _unary(lambda c, x: emit_elementwise.function(c.layer, x, "sigmoid(x)")),
            "QuantizeLinear": _quantize,
        }
    ),
}


def fold_dequantize(c: Call) -> Known:
    """Constant codes of a weight as floats, with one scale, one for each channel, or one for each block of an axis."""
    x, axis = operands.known(c.operand(0), "its operand"), c.get("axis", 1)
    scale, zero, block = c.array(1, "the scale"), c.array(2, "the zero point"), c.get("block_size", 0)
    if block and scale is not None:
        size = x.data.shape[axis]
        scale = np.repeat(scale, block, axis).take(range(size), axis)
        offset = 0.0 if zero is None else np.repeat(zero.astype(np.float64), block, axis).take(range(size), axis)
        return Known(((x.data.astype(np.float64) - offset) * scale).astype(np.float32), x.name)
    return _dequantized(x, scale, zero, axis)
