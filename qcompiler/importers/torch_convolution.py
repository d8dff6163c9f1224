"""aten operators with windows: convolutions and pooling."""

from __future__ import annotations

from typing import Final

from qcompiler.importers import emit_convolution as emit
from qcompiler.importers import operands
from qcompiler.importers.builder import UnsupportedError
from qcompiler.importers.emit_adaptive import adaptive_pool
from qcompiler.importers.emit_reduction import reduce
from qcompiler.importers.torch_call import Call, Handler, first_of, spread, table
from qcompiler.ir.graph import Value

_INDICES: Final = "the positions of its maxima are read, and only the maxima are supported (return_indices=True)"


def _conv(c: Call) -> Value:
    weight, padding = operands.known(c["weight"], "the weight"), c["padding"]
    axes = weight.data.ndim - 2
    if not isinstance(padding, str):
        padding = spread(padding, axes) * 2
    elif padding == "same":
        padding = "SAME_UPPER"
    else:
        padding = (0,) * (2 * axes)
    strides, dilation = spread(c["stride"], axes), spread(c["dilation"], axes)
    return emit.convolution(c.layer, c.x, weight, c["bias"], strides, padding, dilation, c["groups"])


def _conv_transpose(c: Call) -> Value:
    weight = operands.known(c["weight"], "the weight")
    axes = weight.data.ndim - 2
    strides, dilation, more = (spread(c[name], axes) for name in ("stride", "dilation", "output_padding"))
    padding = spread(c["padding"], axes) * 2
    return emit.conv_transpose(c.layer, c.x, weight, c["bias"], strides, padding, more, dilation, c["groups"])


def _convolution(c: Call) -> Value:
    return _conv_transpose(c) if c["transposed"] else _conv(c)


def _max_pool(axes: int) -> Handler:
    def handler(c: Call) -> Value:
        kernel = spread(c["kernel_size"], axes)
        strides = spread(c["stride"], axes) if c["stride"] else kernel
        padding, dilation = spread(c["padding"], axes) * 2, spread(c["dilation"], axes)
        return emit.max_pool(c.layer, c.x, kernel, strides, padding, dilation, c["ceil_mode"])

    return handler


def _average_pool(axes: int) -> Handler:
    def handler(c: Call) -> Value:
        if c.get("divisor_override") is not None:
            raise UnsupportedError(f"divisor_override={c['divisor_override']} is not supported")
        kernel = spread(c["kernel_size"], axes)
        strides = spread(c["stride"], axes) if c["stride"] else kernel
        padding = spread(c["padding"], axes) * 2
        return emit.average_pool(c.layer, c.x, kernel, strides, padding, c["ceil_mode"], c["count_include_pad"])

    return handler


def _wanted(c: Call, axes: int) -> tuple[int, ...]:
    """The positions that adaptive pooling gives; None stands for those that there are."""
    wanted = spread(c["output_size"], axes)
    return tuple(n if w is None else w for n, w in zip(operands.space(c.x, axes), wanted, strict=True))


def _adaptive_average(axes: int) -> Handler:
    def handler(c: Call) -> Value:
        wanted = _wanted(c, axes)
        if set(wanted) == {1}:
            return reduce(c.layer, "mean", c.x, range(2, 2 + axes), keepdims=True)
        return adaptive_pool(c.layer, c.x, wanted, average=True)

    return handler


def _adaptive_max(axes: int) -> Handler:
    return first_of(lambda c: adaptive_pool(c.layer, c.x, _wanted(c, axes), average=False), _INDICES)


OPERATORS: Final[dict[str, Handler]] = table(
    {
        "conv1d.default conv1d.padding conv2d.default conv2d.padding conv3d.default conv3d.padding": _conv,
        "conv_transpose1d.default conv_transpose2d.input conv_transpose3d.input": _conv_transpose,
        "convolution.default _convolution.default": _convolution,
        "max_pool1d.default": _max_pool(1),
        "max_pool2d.default": _max_pool(2),
        "max_pool3d.default": _max_pool(3),
        "max_pool1d_with_indices.default": first_of(_max_pool(1), _INDICES),
        "max_pool2d_with_indices.default": first_of(_max_pool(2), _INDICES),
        "max_pool3d_with_indices.default": first_of(_max_pool(3), _INDICES),
        "avg_pool1d.default": _average_pool(1),
        "avg_pool2d.default": _average_pool(2),
        "avg_pool3d.default": _average_pool(3),
        "adaptive_avg_pool1d.default _adaptive_avg_pool1d.default": _adaptive_average(1),
        "adaptive_avg_pool2d.default _adaptive_avg_pool2d.default": _adaptive_average(2),
        "adaptive_avg_pool3d.default _adaptive_avg_pool3d.default": _adaptive_average(3),
        "adaptive_max_pool1d.default": _adaptive_max(1),
        "adaptive_max_pool2d.default": _adaptive_max(2),
        "adaptive_max_pool3d.default": _adaptive_max(3),
    }
)
