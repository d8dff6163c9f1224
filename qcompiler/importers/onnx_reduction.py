"""ONNX operators that reduce axes, rank, multiply matrices, and the softmax at the end."""

from __future__ import annotations

from typing import Final, Literal

from qcompiler.importers import emit_elementwise, operands
from qcompiler.importers import emit_reduction as emit
from qcompiler.importers.builder import Ending, Known, Merged, UnsupportedError
from qcompiler.importers.onnx_call import Call, Handler
from qcompiler.ir.graph import Value


def _reduce(op: str, before: str = "", after: str = "") -> Handler:
    """A reduction of a function of x, and a function of the result."""

    def handler(c: Call) -> Value:
        x, axes, keepdims = c.x, c.numbers("axes", 1), c.flag("keepdims", 1)
        if not axes and c.flag("noop_with_empty_axes"):
            axes = []
        elif not axes:
            axes = list(range(len(x.type.shape)))
        if before:
            x = emit_elementwise.function(c.layer, x, before, ".each")
        if not axes:
            return emit_elementwise.function(c.layer, x, after) if after else x
        y = emit.reduce(c.layer, op, x, axes, keepdims, ".reduced" if after else "")
        return emit_elementwise.function(c.layer, y, after) if after else y

    return handler


def _arg(largest: bool) -> Handler:
    def handler(c: Call) -> Value:
        last = c.flag("select_last_index")
        return emit.argmax(c.layer, c.operand(0), c.get("axis", 0), c.flag("keepdims", 1), largest, last)

    return handler


def _topk(c: Call) -> object:
    (k,) = c.numbers("k", 1) or [1]
    names = (c.names[0] or f"{c.layer.name}.values", c.names[1] or f"{c.layer.name}.indices")
    return emit.topk(c.layer, c.operand(0), k, c.get("axis", -1), c.flag("largest", 1), names)


def _gemm(c: Call) -> Value | Merged:
    a, b, bias = c.operand(0), c.operand(1), c.operand(2)
    if c.flag("transA"):
        raise UnsupportedError("transA=1 is not supported: the batch would not be in front")
    if c.flag("transB") and isinstance(b, Known):
        b = Known(b.data.T, b.name)
    elif c.flag("transB"):
        raise UnsupportedError("transB=1 is supported for constants only")
    return emit.biased_product(c.layer, a, b, bias, c.get("alpha", 1.0), c.get("beta", 1.0))


def _matmul(c: Call) -> Value | Merged:
    return emit.matmul(c.layer, c.operand(0), c.operand(1))


def _softmax(function: Literal["softmax", "log_softmax"]) -> Handler:
    def handler(c: Call) -> Ending:
        x = c.x
        axis = operands.axis_of(x, c.get("axis", -1 if c.opset >= 13 else 1))
        if c.opset < 13:  # until then all axes from this one on were one
            wide = [a for a in range(axis, len(x.type.shape)) if x.type.shape[a] != 1]
            if len(wide) > 1:
                raise UnsupportedError(f"before operator set 13 a softmax of {x.type} from axis {axis} on is not supported")
            axis = wide[0] if wide else axis
        return operands.ending(c.layer, x, function, axis)

    return handler


OPERATORS: Final[dict[str, Handler]] = {
    "ArgMax": _arg(largest=True),
    "ArgMin": _arg(largest=False),
    "Gemm": _gemm,
    "LogSoftmax": _softmax("log_softmax"),
    "MatMul": _matmul,
    "ReduceL1": _reduce("sum", "abs(x)"),
    "ReduceL2": _reduce("sum", "x * x", "sqrt(x)"),
    "ReduceLogSum": _reduce("sum", "", "log(x)"),
    "ReduceLogSumExp": _reduce("sum", "exp(x)", "log(x)"),
    "ReduceMax": _reduce("amax"),
    "ReduceMean": _reduce("mean"),
    "ReduceMin": _reduce("amin"),
    "ReduceSum": _reduce("sum"),
    "ReduceSumSquare": _reduce("sum", "x * x"),
    "Softmax": _softmax("softmax"),
    "TopK": _topk,
}
