"""Emitters of pooling. ``ceil_mode`` becomes padding at the end: runtimes differ in what they count under it.

Of a volume every slice is pooled on its own: the kernel has depth 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcompiler.exporters.call import Call


def _end_padding(call: Call, dilation: tuple[int, int]) -> tuple[int, int]:
    """Padding at the bottom and right: as much as the last windows reach beyond the input."""
    x, y = call.type_of(0).with_batch(1)[-2:], call.output.type.with_batch(1)[-2:]
    kernel, strides, padding = call.node["kernel"], call.node["strides"], call.node["padding"]
    bottom, right = (max(0, (y[i] - 1) * strides[i] + dilation[i] * (kernel[i] - 1) + 1 - padding[i] - x[i]) for i in (0, 1))
    return bottom, right


def _windows(call: Call, begin: Sequence[int], end: Sequence[int]) -> dict[str, Any]:
    flat = len(call.type_of(0).shape) - 4
    return {
        "kernel_shape": [*[1] * flat, *call.node["kernel"]],
        "strides": [*[1] * flat, *call.node["strides"]],
        "pads": [*[0] * flat, *begin, *[0] * flat, *end],
    }


def max_pool2d(call: Call) -> str:
    """MaxPool; what is padded never counts."""
    node, flat = call.node, len(call.type_of(0).shape) - 4
    windows = _windows(call, node["padding"][:2], _end_padding(call, node["dilation"]))
    if node["dilation"] != (1, 1):
        windows["dilations"] = [*[1] * flat, *node["dilation"]]
    x = call.apart(call.operand(0), call.graph.values[node.inputs[0]])
    return call.apart(call.emit("MaxPool", [x], **windows), call.output)


def average_pool2d(call: Call) -> str:
    """AveragePool, and before it a Pad with zeros where the padding counts."""
    node, x = call.node, call.operand(0)
    begin, end = node["padding"][:2], _end_padding(call, (1, 1))
    if node.get("count_include_pad", 0) and any(node["padding"]):
        top, left, bottom, right = node["padding"]
        axes = [0] * (len(call.type_of(0).shape) - 2)
        x = call.helper("Pad", [x, call.integers("padding", [*axes, top, left, *axes, bottom, right])])
        begin, end = (0, 0), (max(0, end[0] - bottom), max(0, end[1] - right))
    return call.bounded(call.emit("AveragePool", [x], **_windows(call, begin, end)))
