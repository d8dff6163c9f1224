"""Emitters of reductions and rankings. Indices become float32, as all tensors between operators."""

from __future__ import annotations

import math

from qcompiler.exporters.call import Call, Emitter


def reduction(op: str) -> Emitter:
    """ReduceMean, ReduceMax or ReduceMin; their axes are an operand from operator set 18 on."""

    def emitter(call: Call) -> str:
        axes, keep = call.node["axes"], int(call.node["keepdims"])
        if call.builder.opset < 18:
            y = call.emit(op, [call.operand(0)], axes=list(axes), keepdims=keep)
        else:
            y = call.emit(op, [call.operand(0), call.integers("axes", axes)], keepdims=keep)
        return call.apart(call.bounded(y), call.output)

    return emitter


def sum_(call: Call) -> str:
    """ReduceSum, times the node's factor, which in the integer stage is a part of its multiplier."""
    node, x = call.node, call.graph.values[call.node.inputs[0]]
    y = call.emit("ReduceSum", [call.operand(0), call.integers("axes", node["axes"])], keepdims=int(node["keepdims"]))
    factor = node.get("factor", 1.0)
    if node.get("multiplier") is not None and x.scale is not None and call.output.scale is not None:
        factor = math.ldexp(node["multiplier"], -node["shift"]) * call.output.scale / x.scale
    if abs(factor - 1.0) > 1e-6:
        y = call.helper("Mul", [y, call.number("factor", factor)])
    return call.bounded(y)


def argmax(call: Call) -> str:
    """ArgMax or ArgMin."""
    node = call.node
    op = "ArgMax" if node.get("largest", 1) else "ArgMin"
    last = int(node.get("last", 0))
    return call.to_float(
        call.emit(op, [call.operand(0)], axis=node["axis"], keepdims=int(node["keepdims"]), select_last_index=last)
    )


def topk(indices: bool) -> Emitter:
    """TopK: its values, or its indices."""

    def emitter(call: Call) -> str:
        node, builder = call.node, call.builder
        values, places = (builder.unique(f"{call.output.name}.{part}") for part in ("values", "indices"))
        operands = [call.operand(0), call.integers("k", [node["k"]])]
        attributes = {"axis": node["axis"], "largest": int(node.get("largest", 1)), "sorted": 1}
        builder.node("TopK", operands, node.origin or call.output.name, values, places, **attributes)
        return call.to_float(places) if indices else values

    return emitter
