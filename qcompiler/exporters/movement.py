"""Emitters of operators that move elements and compute nothing."""

from __future__ import annotations

import numpy as np

from qcompiler.exporters.call import Call
from qcompiler.ir.graph import BATCH

BEFORE_THE_FIRST = int(np.iinfo(np.int64).min)
"""Where a slice that goes backwards through the first element stops: -1 would be the last element."""


def pad(call: Call) -> str:
    """Pad with a number, or with what the code in its place stands for."""
    node = call.node
    code = node.get("code")
    value = node["value"] if code is None else call.real(call.output, code)
    pads = call.integers("pads", [*node["before"], *node["after"]])
    return call.emit("Pad", [call.operand(0), pads, call.number("value", value)])


def slice_(call: Call) -> str:
    """Slice."""
    node = call.node
    stops = [stop if stop >= 0 else BEFORE_THE_FIRST for stop in node["stops"]]
    lists = {"starts": node["starts"], "stops": stops, "axes": node["axes"], "steps": node["steps"]}
    return call.emit("Slice", [call.operand(0), *(call.integers(role, values) for role, values in lists.items())])


def reshape(call: Call) -> str:
    """Reshape."""
    return call.emit("Reshape", [call.operand(0), call.shape(call.node["shape"])])


def transpose(call: Call) -> str:
    """Transpose."""
    return call.emit("Transpose", [call.operand(0)], perm=list(call.node["order"]))


def take(call: Call) -> str:
    """Gather along one axis."""
    return call.emit("Gather", [call.operand(0), call.integers("indices", call.constant(1).tolist())], axis=call.node["axis"])


def concat(call: Call) -> str:
    """Concat; a constant is repeated for every sample of the batch."""
    batched = next((i for i in range(len(call.node.inputs)) if call.type_of(i).shape[0] == BATCH), None)
    operands = [
        x if batched is None or call.type_of(i).shape[0] == BATCH else _repeated(call, i, x, call.operand(batched))
        for i, x in enumerate(map(call.coded_operand, range(len(call.node.inputs))))
    ]
    return call.emit("Concat", operands, axis=call.node["axis"])


def _repeated(call: Call, index: int, x: str, batched: str) -> str:
    first = call.helper("Gather", [call.helper("Shape", [batched]), call.integers("batch_axis", [0])])
    sizes = call.helper("Concat", [first, call.integers("sizes", call.type_of(index).with_batch(1)[1:])], axis=0)
    return call.helper("Expand", [x, sizes])


def identity(call: Call) -> str:
    """Identity."""
    return call.emit("Identity", [call.operand(0)])
