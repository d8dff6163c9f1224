"""ONNX operators with windows: convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qcompiler.importers import emit_convolution, emit_elementwise, emit_reduction, operands
from qcompiler.importers.builder import Missing, UnsupportedError
from qcompiler.importers.onnx_call import Call, Handler
from qcompiler.ir.graph import Value


@dataclass(frozen=True)
class _Windows:
    strides: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


def _windows(c: Call, x: Value, kernel: Sequence[int]) -> _Windows:
    """Strides, dilation and padding (in front, then behind) with auto_pad worked out."""
    axes = len(kernel)
    size = operands.space(x, axes)
    strides, dilation = tuple(c.get("strides") or (1,) * axes), tuple(c.get("dilations") or (1,) * axes)
    for name, numbers in (("kernel_shape", kernel), ("strides", strides), ("dilations", dilation)):
        _need(name, numbers, axes, 1)
    auto = c.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return _Windows(strides, emit_convolution.same_padding(size, kernel, strides, dilation, auto == "SAME_UPPER"), dilation)
    none = (0,) * (2 * axes)
    padding = none if auto == "VALID" else tuple(c.get("pads") or none)
    _need("pads", padding, 2 * axes)
    return _Windows(strides, padding, dilation)


def _need(name: str, numbers: Sequence[int], count: int, least: int | None = None) -> None:
    """UnsupportedError unless there are so many numbers, none below ``least``."""
    if len(numbers) != count or (least is not None and min(numbers, default=least) < least):
        more = "" if least is None else f" from {least} on"
        raise UnsupportedError(f"{name} {list(numbers)} are not {count} numbers{more}")


def _conv(c: Call) -> Value:
    weight = operands.known(c.operand(1), "the weight")
    w = _windows(c, c.x, weight.data.shape[2:])
    return emit_convolution.convolution(c.layer, c.x, weight, c.operand(2), w.strides, w.padding, w.dilation, c.get("group", 1))


def _conv_transpose(c: Call) -> Value:
    weight = operands.known(c.operand(1), "the weight")
    kernel = weight.data.shape[2:]
    axes, size = len(kernel), operands.space(c.x, len(kernel))
    strides, dilation = c.get("strides") or [1] * axes, c.get("dilations") or [1] * axes
    more, pads = c.get("output_padding") or [0] * axes, c.get("pads") or [0] * (2 * axes)
    for name, numbers in (("kernel_shape", kernel), ("strides", strides), ("dilations", dilation)):
        _need(name, numbers, axes, 1)
    _need("output_padding", more, axes, 0)
    _need("pads", pads, 2 * axes)
    auto, wanted = c.get("auto_pad", "NOTSET"), c.get("output_shape")
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(size, strides, strict=True)]
    if wanted is not None:
        full = [s * (n - 1) + o + (k - 1) * d + 1 for n, s, o, k, d in zip(size, strides, more, kernel, dilation, strict=True)]
        total = [f - w for f, w in zip(full, wanted[-axes:], strict=True)]
        more = [o + max(-t, 0) for o, t in zip(more, total, strict=True)]
        half = [max(t, 0) // 2 for t in total]
        rest = [max(t, 0) - h for t, h in zip(total, half, strict=True)]
        pads = [*half, *rest] if auto == "SAME_UPPER" else [*rest, *half]
    elif auto == "VALID":
        pads = [0] * (2 * axes)
    group = c.get("group", 1)
    return emit_convolution.conv_transpose(c.layer, c.x, weight, c.operand(2), strides, pads, more, dilation, group)


def _max_pool(c: Call) -> tuple[Value, Missing]:
    kernel = c.get("kernel_shape")
    w = _windows(c, c.x, kernel)
    y = emit_convolution.max_pool(c.layer, c.x, kernel, w.strides, w.padding, w.dilation, c.flag("ceil_mode"))
    return y, Missing(c.layer, "its second output (indices) is not supported")


def _average_pool(c: Call) -> Value:
    kernel = c.get("kernel_shape")
    w = _windows(c, c.x, kernel)
    ceil_mode, include = c.flag("ceil_mode"), c.flag("count_include_pad")
    if set(w.dilation) == {1}:
        return emit_convolution.average_pool(c.layer, c.x, kernel, w.strides, w.padding, ceil_mode, include)
    if ceil_mode or (any(w.padding) and not include):
        raise UnsupportedError(f"dilations {w.dilation} with ceil_mode, or with padding that is not counted, are not supported")
    return emit_convolution.dilated_average(c.layer, c.x, kernel, w.strides, w.padding, w.dilation)


def _global_average_pool(c: Call) -> Value:
    return emit_reduction.reduce(c.layer, "mean", c.x, range(2, len(c.x.type.shape)), keepdims=True)


def _global_max_pool(c: Call) -> Value:
    if len(c.x.type.shape) != 4:
        return emit_reduction.reduce(c.layer, "amax", c.x, range(2, len(c.x.type.shape)), keepdims=True)
    return emit_convolution.max_pool(c.layer, c.x, operands.space(c.x, 2), (1, 1), (0, 0, 0, 0), (1, 1), False)


def _lrn(c: Call) -> Value:
    numbers = (c.get("alpha", 1e-4), c.get("beta", 0.75), c.get("bias", 1.0))
    return emit_elementwise.local_response_norm(c.layer, c.x, c.get("size"), *numbers)


OPERATORS: Final[dict[str, Handler]] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "LRN": _lrn,
    "MaxPool": _max_pool,
}
