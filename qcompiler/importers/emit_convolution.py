"""Convolutions, transposed ones and pooling over one, two or three axes.

One axis is two of which the first has one element; the reshapes are free. Pooling over three axes is pooling over the last two
and then over the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Literal

import numpy as np

from qcompiler.importers.builder import LARGEST, Known, Layer, UnsupportedError, dims
from qcompiler.importers.operands import LOWEST, known, optional_known, space, value
from qcompiler.ir.graph import Dim, Value
from qcompiler.ops.operator import window_size

Same = Literal["SAME_UPPER", "SAME_LOWER"]


def same_padding(
    size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int], more_behind: bool
) -> tuple[int, ...]:
    """Counts in front of, then behind each axis for ceil(size / stride) positions; an odd one goes behind or in front."""
    total = [
        max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in zip(size, kernel, strides, dilation, strict=True)
    ]
    less, more = [t // 2 for t in total], [t - t // 2 for t in total]
    return (*less, *more) if more_behind else (*more, *less)


def _as_image(layer: Layer, x: Value) -> Value:
    """``[N,C,L]`` as ``[N,C,1,L]``."""
    return layer.emit("reshape", [x], ".image", shape=(*x.type.shape[:2], 1, x.type.shape[2]))


def _as_sequence(layer: Layer, y: Value) -> Value:
    """``[N,C,1,L]`` as ``[N,C,L]``."""
    return layer.emit("reshape", [y], shape=(*y.type.shape[:2], y.type.shape[3]))


def _image_padding(padding: Sequence[int]) -> tuple[int, int, int, int]:
    return (0, padding[0], 0, padding[1])


def _lifted(weight: Known) -> Known:
    """``[A,B,K]`` as ``[A,B,1,K]``."""
    return Known(weight.data[:, :, None], weight.name)


def convolution(
    layer: Layer,
    x: object,
    weight: object,
    bias: object,
    strides: Sequence[int],
    padding: Sequence[int] | Same,
    dilation: Sequence[int],
    groups: int,
) -> Value:
    """A convolution by ``weight [O,C/groups,...]``; ``padding``: the counts in front, then those behind, or how to find them."""
    x, weight, bias = value(x), known(weight, "the weight"), optional_known(bias, "the bias")
    axes = weight.data.ndim - 2
    if axes not in (1, 2, 3):
        raise UnsupportedError(f"the weight {dims(weight.data.shape)} is not one of a 1-d, 2-d or 3-d convolution")
    size = space(x, axes)
    if isinstance(padding, str):
        padding = same_padding(size, weight.data.shape[2:], strides, dilation, padding == "SAME_UPPER")
    _check_windows(padding, strides, dilation)
    tail = [] if bias is None else [bias]
    if axes == 1:
        attributes = _attributes((1, *strides), _image_padding(padding), (1, *dilation))
        y = layer.emit("conv2d", [_as_image(layer, x), _lifted(weight), *tail], ".rows", groups=groups, **attributes)
        return _as_sequence(layer, y)
    attributes = _attributes(strides, padding, dilation)
    return layer.emit("conv2d" if axes == 2 else "conv3d", [x, weight, *tail], groups=groups, **attributes)


def _check_windows(padding: Sequence[int], *numbers: Sequence[int]) -> None:
    """UnsupportedError for negative padding, and for steps that go beyond any tensor."""
    if min(padding) < 0:
        raise UnsupportedError(f"negative padding {tuple(padding)}")
    for chosen in numbers:
        if max(chosen) > LARGEST:
            raise UnsupportedError(f"windows of {tuple(chosen)}: at most {LARGEST:,} is supported")


def _attributes(strides: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> dict[str, Any]:
    return {"strides": tuple(strides), "padding": tuple(padding), "dilation": tuple(dilation)}


def conv_transpose(
    layer: Layer,
    x: object,
    weight: object,
    bias: object,
    strides: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Value:
    """A transposed convolution by ``weight [I,O/groups,...]``: ``padding`` is cut off, ``output_padding`` added behind."""
    x, weight, bias = value(x), known(weight, "the weight"), optional_known(bias, "the bias")
    axes = weight.data.ndim - 2
    if axes not in (1, 2):
        raise UnsupportedError(f"only 1-d and 2-d transposed convolutions are supported, the weight is {dims(weight.data.shape)}")
    space(x, axes)
    grown = [o + max(-p, 0) for o, p in zip(output_padding, padding[axes:], strict=True)]
    padding = (*padding[:axes], *(max(p, 0) for p in padding[axes:]))
    _check_windows(padding, strides, dilation)
    tail = [] if bias is None else [bias]
    if axes == 2:
        attributes = {**_attributes(strides, padding, dilation), "output_padding": tuple(grown)}
        return layer.emit("conv_transpose2d", [x, weight, *tail], groups=groups, **attributes)
    attributes = {**_attributes((1, *strides), _image_padding(padding), (1, *dilation)), "output_padding": (0, *grown)}
    y = layer.emit("conv_transpose2d", [_as_image(layer, x), _lifted(weight), *tail], ".rows", groups=groups, **attributes)
    return _as_sequence(layer, y)


def max_pool(
    layer: Layer,
    x: object,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> Value:
    """Max pooling; ``padding`` has the counts in front, then those behind."""
    more: dict[str, Any] = {"ceil_mode": int(ceil_mode)}
    windows = {"kernel": kernel, "strides": strides, "dilation": dilation}
    source, whole = _before_lowest_pad(layer, value(x), padding)
    if ceil_mode and _count(source, windows, whole) != _count(value(x), windows, padding):
        source, whole = value(x), padding  # a last window would lie in the padding alone
    return _pool(layer, "max_pool2d", source, windows, whole, more)


def _before_lowest_pad(layer: Layer, x: Value, padding: Sequence[int]) -> tuple[Value, Sequence[int]]:
    """``x`` as it was before it was padded with the lowest number, and the padding that max pooling does in its place."""
    axes = len(padding) // 2
    node = layer.builder.producer(x)
    if node is None or node.op != "pad" or node["value"] > LOWEST or any((*node["before"][:-axes], *node["after"][:-axes])):
        return x, padding
    amounts = (*node["before"][-axes:], *node["after"][-axes:])
    return layer.builder.value(node.inputs[0]), tuple(a + b for a, b in zip(padding, amounts, strict=True))


def _count(x: Value, windows: Mapping[str, Sequence[int]], padding: Sequence[int]) -> list[int]:
    """How many windows there are along each axis, the last ones as ceil mode has them."""
    axes = len(padding) // 2
    sides = zip(space(x, axes), padding[:axes], padding[axes:], *windows.values(), strict=True)
    return [
        window_size(size, before, after, kernel, stride, dilation, True)
        for size, before, after, kernel, stride, dilation in sides
    ]


def average_pool(
    layer: Layer, x: object, kernel: Sequence[int], strides: Sequence[int], padding: Sequence[int], ceil_mode: bool, include: bool
) -> Value:
    """Average pooling; ``include`` counts the padding."""
    more: dict[str, Any] = {"ceil_mode": int(ceil_mode), "count_include_pad": int(include)}
    return _pool(layer, "average_pool2d", x, {"kernel": kernel, "strides": strides}, padding, more)


def _pool(
    layer: Layer, op: str, x: object, windows: dict[str, Sequence[int]], padding: Sequence[int], more: dict[str, Any]
) -> Value:
    x = value(x)
    axes = len(windows["kernel"])
    space(x, axes)
    _check_windows(padding, *windows.values())
    attributes: dict[str, Any] = {key: tuple(numbers) for key, numbers in windows.items()}
    if axes == 2:
        return layer.emit(op, [x], **attributes, padding=tuple(padding), **more)
    if axes == 1:
        attributes = {key: (1, *numbers) for key, numbers in attributes.items()}
        image = _as_image(layer, x)
        return _as_sequence(layer, layer.emit(op, [image], ".rows", **attributes, padding=_image_padding(padding), **more))
    inner = {key: numbers[1:] for key, numbers in attributes.items()}
    y = layer.emit(op, [x], ".planes", **inner, padding=(*padding[1:3], *padding[4:6]), **more)
    shape: tuple[Dim, ...] = y.type.shape
    columns = layer.emit("reshape", [y], ".columns", shape=(*shape[:3], prod(d for d in shape[3:] if isinstance(d, int))))
    outer = {key: (numbers[0], 1) for key, numbers in attributes.items()}
    y = layer.emit(op, [columns], ".depth", **outer, padding=(padding[0], 0, padding[3], 0), **more)
    return layer.emit("reshape", [y], shape=(*y.type.shape[:3], *shape[3:]))


def dilated_average(
    layer: Layer, x: object, kernel: Sequence[int], strides: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Value:
    """Average pooling with holes, all taps counted: a convolution of every channel by equal weights."""
    x = value(x)
    channels = x.type.with_batch(1)[1]
    weight = layer.known(np.full((channels, 1, *kernel), 1 / prod(kernel), np.float32), "share")
    return convolution(layer, x, weight, None, strides, padding, dilation, channels)
