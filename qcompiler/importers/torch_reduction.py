"""aten operators that reduce axes, rank, multiply matrices, look up rows, and the softmax at the end."""

from __future__ import annotations

from typing import Final, Literal

from qcompiler.importers import emit_reduction as emit
from qcompiler.importers import operands
from qcompiler.importers.builder import Ending, FixedBatchError, Known, Merged, Missing, UnsupportedError
from qcompiler.importers.emit_elementwise import extremum, total
from qcompiler.importers.operands import Stacked
from qcompiler.importers.torch_call import Call, Handler, table
from qcompiler.ir.graph import Value


def _reduce(op: str) -> Handler:
    def handler(c: Call) -> Value:
        if isinstance(c.operand, Stacked) and _axes(c) == [0]:
            return _of_stacked(c, op, c.operand)
        return emit.reduce(c.layer, op, c.x, _axes(c), c.get("keepdim", False))

    return handler


def _of_stacked(c: Call, op: str, x: Stacked) -> Value:
    """The sum, mean or extreme of tensors element by element."""
    if c.get("keepdim", False):
        raise FixedBatchError("it leaves an axis in front of the batch")
    if op in ("sum", "mean"):
        return total(c.layer, list(x.parts), 1 / len(x.parts) if op == "mean" else 1.0)
    return extremum(c.layer, "maximum" if op == "amax" else "minimum", list(x.parts))


def _axes(c: Call) -> list[int] | None:
    axes = c.get("dim")
    return [axes] if isinstance(axes, int) else list(axes) if axes else None


def _extreme_of_axis(largest: bool) -> Handler:
    def handler(c: Call) -> tuple[object, ...]:
        if isinstance(c.operand, Stacked) and c["dim"] == 0:
            why = "it ranks tensors that are stacked in front of the batch"
            return _of_stacked(c, "amax" if largest else "amin", c.operand), Missing(c.layer, why)
        return emit.extreme_of_axis(c.layer, c.operand, c["dim"], c["keepdim"], largest)

    return handler


def _arg(largest: bool) -> Handler:
    return lambda c: emit.argmax(c.layer, c.operand, c["dim"], c["keepdim"], largest)


def _topk(c: Call) -> tuple[object, ...]:
    names = c.names(2)
    return emit.topk(c.layer, c.operand, c["k"], c["dim"], c["largest"], (names[0], names[1]))


def _norm(c: Call) -> Value:
    return emit.norm(c.layer, c.x, float(c["ord"]), _axes(c), c["keepdim"])


def _linear(c: Call) -> Value | Merged:
    weight, bias = operands.known(c["weight"], "the weight"), operands.optional_known(c["bias"], "the bias")
    return emit.linear(c.layer, c.operand, weight, bias)


def _addmm(c: Call) -> Value | Merged:
    first, second = (c["mat1"], c["mat2"]) if "mat1" in c.arguments else (c["batch1"], c["batch2"])
    return emit.biased_product(c.layer, first, second, c.operand, c["alpha"], c["beta"])


def _matmul(c: Call) -> Value | Merged:
    return emit.matmul(c.layer, c.operand, c["mat2"] if "mat2" in c.arguments else c["other"])


def _embedding(c: Call) -> Value:
    return emit.embedding(c.layer, c["indices"], operands.known(c["weight"], "the table"))


def _softmax(function: Literal["softmax", "log_softmax"]) -> Handler:
    def handler(c: Call) -> Ending:
        return operands.ending(c.layer, c.x, function, c["dim"])

    return handler


def _no_variance(c: Call) -> Known:
    raise UnsupportedError("it takes the variance of its input")


OPERATORS: Final[dict[str, Handler]] = table(
    {
        "mean.dim mean.default": _reduce("mean"),
        "sum.dim_IntList sum.default": _reduce("sum"),
        "amax.default max.default": _reduce("amax"),
        "amin.default min.default": _reduce("amin"),
        "max.dim": _extreme_of_axis(largest=True),
        "min.dim": _extreme_of_axis(largest=False),
        "argmax.default": _arg(largest=True),
        "argmin.default": _arg(largest=False),
        "topk.default": _topk,
        "linalg_vector_norm.default": _norm,
        "linear.default": _linear,
        "addmm.default baddbmm.default": _addmm,
        "mm.default matmul.default bmm.default": _matmul,
        "embedding.default": _embedding,
        "softmax.int _softmax.default": _softmax("softmax"),
        "log_softmax.int _log_softmax.default": _softmax("log_softmax"),
        "var.correction var.dim std.correction std.dim var_mean.correction": _no_variance,
    }
)
