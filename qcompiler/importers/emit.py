"""What both importers say in the same way: convolution, pooling, padding, slicing, reshaping in terms of the graph's operators.

Every function raises UnsupportedError or FixedBatchError (see ``builder``) for what has no counterpart.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import numpy as np

from qcompiler.importers.builder import Ending, FixedBatchError, Known, Layer, Unknown, UnsupportedError, dims
from qcompiler.ir.graph import BATCH, Array, Dim, Value

Tensor = Value | Known | Unknown | Ending
INFINITY = float("inf")
LAST_STEP = "supported only as the model's last step, over an axis other than the batch"


def value(x: object, what: str = "its operand") -> Value:
    """``x`` as a computed tensor."""
    if not isinstance(x, Value):
        raise UnsupportedError(f"{what} is a constant")
    return x


def known(x: object, what: str) -> Known:
    """``x`` as a constant."""
    if not isinstance(x, Known):
        raise UnsupportedError(f"{what} is computed from the model's input, only constants are supported")
    return x


def optional_known(x: object, what: str) -> Known | None:
    """``x`` as a constant, or None."""
    return None if x is None else known(x, what)


def sizes(x: Value) -> tuple[int, ...]:
    """The dimensions behind the batch."""
    return tuple(d for d in x.type.shape if isinstance(d, int))


def image(x: Value) -> tuple[int, int]:
    """Height and width of ``[N,C,H,W]``."""
    if len(x.type.shape) != 4:
        raise UnsupportedError(f"only tensors [N,C,H,W] are supported, not {x.type}")
    _, height, width = sizes(x)
    return height, width


def axis_of(x: Value, axis: int) -> int:
    """``axis`` counted from 0."""
    rank = len(x.type.shape)
    if not -rank <= axis < rank:
        raise UnsupportedError(f"{x.type} has no axis {axis}")
    return axis % rank


def convolution(
    layer: Layer,
    x: object,
    weight: object,
    bias: object,
    strides: Sequence[int],
    padding: Sequence[int] | Literal["SAME_UPPER", "SAME_LOWER"],
    dilation: Sequence[int],
    groups: int,
) -> Value:
    """conv2d; ``padding`` is top, left, bottom, right, or how to divide what keeps ceil(size / stride) positions."""
    x, weight, bias = value(x), known(weight, "the weight"), optional_known(bias, "the bias")
    if weight.data.ndim != 4:
        raise UnsupportedError(f"only 2-d convolutions are supported, the weight is {dims(weight.data.shape)}")
    if isinstance(padding, str):
        padding = same_padding(image(x), weight.data.shape[2:], strides, dilation, padding == "SAME_UPPER")
    if min(padding) < 0:
        raise UnsupportedError(f"negative padding {tuple(padding)}")
    operands: list[Value | Known] = [x, weight] if bias is None else [x, weight, bias]
    attributes: dict[str, Any] = {"strides": tuple(strides), "padding": tuple(padding), "dilation": tuple(dilation)}
    return layer.emit("conv2d", operands, groups=groups, **attributes)


def same_padding(
    size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int], more_behind: bool
) -> tuple[int, ...]:
    """Top, left, bottom, right so that ceil(size / stride) positions result; an odd one goes behind or in front."""
    total = [
        max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in zip(size, kernel, strides, dilation, strict=True)
    ]
    less, more = [t // 2 for t in total], [t - t // 2 for t in total]
    return (*less, *more) if more_behind else (*more, *less)


def linear(layer: Layer, x: object, weight: Known, bias: Known | None) -> Value:
    """``x @ weight.T + bias`` with weight ``[O,I]``; the bias may also be a scalar or [1,O]."""
    x = value(x)
    if weight.data.ndim != 2:
        raise UnsupportedError(f"the weight is {dims(weight.data.shape)}, not a matrix")
    if bias is None:
        return layer.emit("linear", [x, weight])
    features = weight.data.shape[0]
    if bias.data.shape != (features,):
        if bias.data.size not in (1, features) or bias.data.shape[-1:] not in ((), (1,), (features,)):
            raise UnsupportedError(f"the bias {dims(bias.data.shape)} is not one number for each of {features} features")
        bias = Known(np.broadcast_to(bias.data.reshape(-1), (features,)), bias.name)
    return layer.emit("linear", [x, weight, bias])


def scaled(x: Known, factor: float) -> Known:
    """``x * factor``."""
    return x if factor == 1 else Known(x.data * np.float32(factor), x.name)


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


def clip(layer: Layer, x: object, low: float | None, high: float | None) -> Value:
    """Limits; None stands for none."""
    return layer.emit(
        "clip", [value(x)], clamp=(-INFINITY if low is None else float(low), INFINITY if high is None else float(high))
    )


def add(layer: Layer, a: object, b: object) -> Value:
    """A sum of two tensors of which one may be a constant."""
    if not isinstance(a, Value) and not isinstance(b, Value):
        raise UnsupportedError("both operands are constants")
    operands: list[Value | Known] = [x for x in (a, b) if isinstance(x, Value | Known)]
    return layer.emit("add", operands)


def max_pool(
    layer: Layer,
    x: object,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> Value:
    """max_pool2d; ``padding`` is top, left, bottom, right."""
    x = value(x)
    image(x)
    windows: dict[str, Any] = {
        "kernel": tuple(kernel),
        "strides": tuple(strides),
        "padding": tuple(padding),
        "dilation": tuple(dilation),
    }
    return layer.emit("max_pool2d", [x], ceil_mode=int(ceil_mode), **windows)


def average_pool(
    layer: Layer, x: object, kernel: Sequence[int], strides: Sequence[int], padding: Sequence[int], ceil_mode: bool, include: bool
) -> Value:
    """average_pool2d; ``include`` counts the padding."""
    x = value(x)
    image(x)
    windows: dict[str, Any] = {"kernel": tuple(kernel), "strides": tuple(strides), "padding": tuple(padding)}
    return layer.emit("average_pool2d", [x], ceil_mode=int(ceil_mode), count_include_pad=int(include), **windows)


def mean(layer: Layer, x: object, axes: Sequence[int] | None, keepdims: bool) -> Value:
    """The mean over ``axes``; None stands for all of them."""
    x = value(x)
    rank = len(x.type.shape)
    positive = tuple(range(rank)) if axes is None else tuple(sorted({axis_of(x, a) for a in axes}))
    if 0 in positive:
        raise UnsupportedError(f"it averages over the batch of {x.type}")
    return layer.emit("mean", [x], axes=positive, keepdims=int(keepdims))


def pad(layer: Layer, x: object, before: Sequence[int], after: Sequence[int], fill: float) -> Value:
    """Padding by a constant; negative counts crop. One count per axis, 0 for the batch."""
    x = value(x)
    if before[0] or after[0]:
        raise FixedBatchError(f"it pads the batch by {before[0]} and {after[0]}")
    cut = [axis for axis in range(len(x.type.shape)) if before[axis] < 0 or after[axis] < 0]
    grown = x
    if max((*before, *after)) > 0:
        counts: dict[str, Any] = {"before": tuple(max(b, 0) for b in before), "after": tuple(max(a, 0) for a in after)}
        grown = layer.emit("pad", [x], ".grown" if cut else "", value=float(fill), **counts)
    return cropped(layer, grown, cut, [max(-before[a], 0) for a in cut], [min(after[a], 0) or None for a in cut], [1] * len(cut))


def cropped(
    layer: Layer, x: object, axes: Sequence[int], starts: Sequence[int | None], stops: Sequence[int | None], steps: Sequence[int]
) -> Value:
    """``x[start:stop:step]`` along ``axes`` with the meaning that Python gives to None, negative and large indices."""
    x = value(x)
    kept: dict[int, tuple[int, int, int]] = {}
    for axis, start, stop, step in zip((axis_of(x, a) for a in axes), starts, stops, steps, strict=True):
        size = x.type.shape[axis]
        if step < 1:
            raise UnsupportedError(f"its step is {step}, only steps from 1 on are supported")
        if not isinstance(size, int):
            if start not in (None, 0) or (stop is not None and stop < 2**31 - 1) or step != 1:
                raise FixedBatchError(f"it slices the batch by [{start}:{stop}:{step}]")
            continue
        first, last, _ = slice(start, stop, step).indices(size)
        if (first, last, step) != (0, size, 1):
            kept[axis] = (first, last, step)
    if not kept:
        return x
    starts_, stops_, steps_ = zip(*(kept[a] for a in sorted(kept)), strict=True)
    return layer.emit("slice", [x], axes=tuple(sorted(kept)), starts=starts_, stops=stops_, steps=steps_)


def reshape(layer: Layer, x: object, shape: Sequence[Dim | None], batch: int | None) -> Value:
    """``x`` in another shape, in which one dimension may be None: what remains.

    ``batch`` is the constant batch size that the model was written for, if it has one: in front of ``shape`` it stands
    for the batch.
    """
    x = value(x)
    if not shape:
        raise FixedBatchError(f"it reshapes {x.type} to a scalar")
    front, *rest = shape
    each = x.type.elements
    product = prod(d for d in rest if isinstance(d, int))
    if BATCH not in rest:
        if None not in rest and product == each and (front is None or front in (BATCH, batch)):
            return _reshaped(layer, x, (BATCH, *(d for d in rest if d is not None)))
        if rest.count(None) == 1 and front is not None and front in (BATCH, batch) and product and each % product == 0:
            return _reshaped(layer, x, (BATCH, *(each // product if d is None else d for d in rest)))
    target = dims([-1 if d is None else d for d in shape])
    raise FixedBatchError(f"it reshapes {x.type} to {target}, which does not keep the batch in front")


def _reshaped(layer: Layer, x: Value, shape: tuple[Dim, ...]) -> Value:
    return x if x.type.shape == shape else layer.emit("reshape", [x], shape=shape)


def permuted(layer: Layer, x: object, order: Sequence[int]) -> Value:
    """A transposition that keeps the order of the elements, as a reshape; any other is not supported."""
    x = value(x)
    shape = x.type.shape
    order = tuple(axis_of(x, a) for a in order)
    moved = [a for a in order if shape[a] != 1]
    if moved != sorted(moved):
        raise UnsupportedError(f"it moves the elements of {x.type} by {order}; only constants can be transposed")
    if order[0] != 0:
        raise FixedBatchError(f"it moves the batch of {x.type} by {order}")
    return _reshaped(layer, x, tuple(shape[a] for a in order))


def ending(layer: Layer, x: object, function: Literal["softmax", "log_softmax"], axis: int) -> Ending:
    """A softmax as the model's last step."""
    x = value(x)
    axis = axis_of(x, axis)
    if not layer.final or axis == 0:
        raise UnsupportedError(LAST_STEP)
    return Ending(x, function, axis, layer.origin)


def as_floats(data: Array) -> Array:
    """Floating data as float32; anything else as it is."""
    return data.astype(np.float32) if data.dtype.kind == "f" and data.dtype != np.float32 else data
