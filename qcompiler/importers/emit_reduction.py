"""Sums, means and extremes over axes, rankings, products with matrices, and rows of tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from qcompiler.importers.builder import (
    LAST_STEP,
    Ending,
    FixedBatchError,
    Known,
    Layer,
    Merged,
    Missing,
    UnsupportedError,
    dims,
)
from qcompiler.importers.emit_elementwise import binary, function
from qcompiler.importers.emit_movement import permuted, reshaped
from qcompiler.importers.operands import axis_of, inner_axis, value
from qcompiler.ir.graph import Value

GROWING: Final = ("atan(x)", "exp(x)", "sigmoid(x)", "softplus(x)", "tanh(x)")
"""Functions that grow everywhere: they do not change which element is the largest."""

_DOES = {"mean": "averages", "sum": "sums", "amax": "takes the maximum", "amin": "takes the minimum"}


def reduce(layer: Layer, op: str, x: object, axes: Sequence[int] | None, keepdims: bool, suffix: str = "") -> Value:
    """mean, sum, amax or amin over ``axes``; None stands for all of them."""
    x = value(x)
    rank = len(x.type.shape)
    positive = tuple(range(rank)) if axes is None else tuple(sorted({axis_of(x, a) for a in axes}))
    if 0 in positive:
        raise UnsupportedError(f"it {_DOES[op]} over the batch of {x.type}")
    if not positive:
        return x
    return layer.emit(op, [x], suffix, axes=positive, keepdims=int(keepdims))


def norm(layer: Layer, x: object, order: float, axes: Sequence[int] | None, keepdims: bool) -> Value:
    """The norm of order 1, 2 or infinity over ``axes``."""
    if order == 2:
        squares = function(layer, x, "x * x", ".square")
        return function(layer, reduce(layer, "sum", squares, axes, keepdims, ".sum"), "sqrt(x)")
    if order not in (1, float("inf")):
        raise UnsupportedError(f"a norm of order {order} is not supported")
    return reduce(layer, "sum" if order == 1 else "amax", function(layer, x, "abs(x)", ".abs"), axes, keepdims)


def _in_order(layer: Layer, x: object, axis: int) -> Value:
    """A tensor whose elements have the order of those of ``x`` along ``axis``: what is before functions that only grow."""
    y = x.value if isinstance(x, Ending) and axis_of(x.value, axis) == x.axis else value(layer.builder.read(x))
    while (node := layer.builder.producer(y)) is not None and (node.op == "identity" or node.get("expression") in GROWING):
        y = layer.builder.value(node.inputs[0])
    return y


def argmax(layer: Layer, x: object, axis: int | None, keepdims: bool, largest: bool, last: bool = False) -> Value:
    """The index of the largest or smallest element; ties go to the first or the last one."""
    if axis is None:
        raise FixedBatchError(f"it ranks over the batch of {value(layer.builder.read(x)).type}")
    x = _in_order(layer, x, axis)
    axis = inner_axis(x, axis, "ranks over")
    y = layer.emit("argmax", [x], axis=axis, keepdims=int(keepdims), largest=int(largest), last=int(last))
    layer.builder.index_values.add(y.name)
    return y


def extreme_of_axis(layer: Layer, x: object, axis: int, keepdims: bool, largest: bool) -> tuple[Value | Missing, Value]:
    """The largest or smallest elements along an axis, and their indices."""
    if isinstance(x, Ending):
        values: Value | Missing = Missing(x.layer, LAST_STEP)
    else:
        values = reduce(layer, "amax" if largest else "amin", x, [axis], keepdims)
    return values, argmax(layer, x, axis, keepdims, largest)


def topk(layer: Layer, x: object, k: int, axis: int, largest: bool, names: tuple[str, str]) -> tuple[Value | Missing, Value]:
    """The k largest or smallest elements, sorted, and their indices, each with a name of its own."""
    ranked = _in_order(layer, x, axis)
    axis = inner_axis(ranked, axis, "ranks over")
    if isinstance(x, Ending):
        values: Value | Missing = Missing(x.layer, LAST_STEP)
    else:
        values = replace(layer, name=names[0]).emit("topk_values", [value(x)], axis=axis, k=k, largest=int(largest))
    indices = replace(layer, name=names[1]).emit("topk_indices", [ranked], axis=axis, k=k, largest=int(largest))
    layer.builder.index_values.add(indices.name)
    return values, indices


def linear(layer: Layer, x: object, weight: Known, bias: Known | None, suffix: str = "") -> Value | Merged:
    """``x @ weight.T + bias`` with weight ``[O,I]``; the bias may also be a scalar or [1,O]."""
    if isinstance(x, Merged):
        return Merged(value(linear(layer, x.value, weight, bias)), x.axes, x.why)
    x = value(x)
    if weight.data.ndim != 2:
        raise UnsupportedError(f"the weight is {dims(weight.data.shape)}, not a matrix")
    if bias is None:
        return layer.emit("linear", [x, weight], suffix)
    features = weight.data.shape[0]
    if bias.data.shape != (features,):
        if bias.data.size not in (1, features) or bias.data.shape[-1:] not in ((), (1,), (features,)):
            raise UnsupportedError(f"the bias {dims(bias.data.shape)} is not one number for each of {features} features")
        bias = Known(np.broadcast_to(bias.data.reshape(-1), (features,)), bias.name)
    return layer.emit("linear", [x, weight, bias], suffix)


def matmul(layer: Layer, a: object, b: object, suffix: str = "") -> Value | Merged:
    """numpy's matmul of two tensors, of which one may be a constant matrix or vector."""
    if isinstance(b, Known):
        return _times_constant(layer, a, b, suffix)
    if isinstance(a, Known):
        matrix = _matrix(a)
        if matrix.data.ndim != 2 or len(value(b).type.shape) < 3:
            raise UnsupportedError(f"its first operand, a constant {dims(a.data.shape)}, is not a matrix for each sample")
        turned = _swapped(layer, value(b), ".turned")
        return _swapped(layer, value(linear(layer, turned, matrix, None, ".product")), suffix)
    if isinstance(a, Merged) and isinstance(b, Merged) and a.axes == b.axes:
        return Merged(value(matmul(layer, a.value, b.value, suffix)), a.axes, a.why)
    return layer.emit("matmul", [value(a), value(b)], suffix)


def _swapped(layer: Layer, x: Value, suffix: str) -> Value:
    rank = len(x.type.shape)
    return permuted(layer, x, (*range(rank - 2), rank - 1, rank - 2), suffix)


def _matrix(x: Known) -> Known:
    """``x`` without dimensions of 1 in front of the last two."""
    data = x.data
    while data.ndim > 2 and data.shape[0] == 1:
        data = data[0]
    return Known(data, x.name)


def _times_constant(layer: Layer, a: object, b: Known, suffix: str) -> Value | Merged:
    matrix = _matrix(b)
    if matrix.data.ndim > 2:
        raise UnsupportedError(f"its second operand is a constant {dims(b.data.shape)}, not one matrix")
    if isinstance(a, Value) and b.data.ndim > len(a.type.shape):
        raise FixedBatchError(f"its second operand {dims(b.data.shape)} has more axes than {a.type}")
    if matrix.data.ndim == 2:
        return linear(layer, a, Known(matrix.data.T, b.name), None, suffix)
    column = value(linear(layer, a, Known(matrix.data[None], b.name), None, ".column"))
    return reshaped(layer, column, column.type.shape[:-1], suffix)


def biased_product(layer: Layer, a: object, b: object, bias: object, alpha: float, beta: float) -> Value | Merged:
    """``alpha * a @ b + beta * bias``, where the bias may be computed as well."""
    if not beta or bias is None:
        bias, beta = None, 1.0
    if isinstance(b, Known) and b.data.ndim == 2 and (bias is None or (isinstance(bias, Known) and bias.data.ndim <= 2)):
        weight = Known((b.data * np.float32(alpha)).T if alpha != 1 else b.data.T, b.name)
        fits = bias is None or bias.data.ndim < 2 or bias.data.shape[0] == 1 or bias.data.shape[1] != weight.data.shape[0]
        if fits:
            shifted = None if bias is None else Known(bias.data * np.float32(beta) if beta != 1 else bias.data, bias.name)
            return linear(layer, a, weight, shifted)
    product = value(matmul(layer, a, b, ".product"))
    if alpha != 1:
        product = binary(
            layer, "mul", product, layer.known(np.array(alpha, np.float32), "alpha"), "" if bias is None else ".scaled"
        )
    if bias is None:
        return product
    if beta != 1:
        factor = layer.known(np.array(beta, np.float32), "beta")
        bias = (
            Known(bias.data * np.float32(beta), bias.name)
            if isinstance(bias, Known)
            else binary(layer, "mul", bias, factor, ".bias")
        )
    return binary(layer, "add", product, bias)


def embedding(layer: Layer, indices: object, table: Known) -> Value:
    """Rows of a constant table ``[V, ...]`` by an integer input of the model."""
    x = value(indices)
    if x.name not in layer.builder.integer_inputs:
        raise UnsupportedError("its indices are no integer input of the model")
    data = table.data
    if data.ndim == 2:
        return layer.emit("embedding", [x, table])
    rows = layer.emit("embedding", [x, Known(data.reshape(len(data), -1), table.name)], ".rows")
    return reshaped(layer, rows, (*x.type.shape, *data.shape[1:]))
