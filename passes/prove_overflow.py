"""Analysis: proves that no sum or product of the integer graph can overflow, whatever the input.

Every partial sum of raw codes, in any order, from its start, fits int32 (times 16 or 64 where weights have 4 or 2 bits, as
kernels have it, and moved left as far as any channel's is), both for unsigned bytes and for the signed bytes that ARM kernels
see; every product of the wide requantizations fits int64 with its rounding term; every term of the narrow forms and of additions
fits int32, but for products that are used modulo 2^32. The reasons are exact integer bounds over the actual weights.

The graph is returned unchanged. InternalError, with every failed bound, where the proof fails: quantization chooses scales so
that it cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np

from qcompiler import arith
from qcompiler.errors import InternalError
from qcompiler.ir.dtypes import I32, IntegerType
from qcompiler.ir.graph import Array, Graph, Node, Stage
from qcompiler.ops.requantize import is_saturated

Bound = tuple[str, int, int]
"""What is bounded, the largest magnitude, the limit."""

_INT32, _INT64 = IntegerType(32, signed=True).maximum, IntegerType(64, signed=True).maximum


def code_range(graph: Graph, name: str) -> tuple[int, int]:
    """The smallest and largest ``code - zero`` of an activation or of a constant operand."""
    if name in graph.constant:
        data = graph.constant[name].data
        return int(data.min(initial=0)), int(data.max(initial=0))
    value = graph.values[name]
    assert isinstance(value.type.dtype, IntegerType)
    zero = value.zero or 0
    return value.type.dtype.minimum - zero, value.type.dtype.maximum - zero


def weight_rows(graph: Graph, node: Node) -> tuple[Array, Array, int]:
    """Weight codes ``[O, K]``, the start of the sums int64[O], and the largest input code of a conv2d or linear."""
    codes = graph.constant[node.inputs[1]].data
    rows = codes.reshape(len(codes), -1)
    start = graph.constant[node.inputs[2]].data if len(node.inputs) == 3 else np.zeros(len(rows))
    dtype = graph.type_of(node.inputs[0]).dtype
    assert isinstance(dtype, IntegerType)
    return rows, start.astype(np.int64), dtype.maximum


def weight_places(graph: Graph, node: Node) -> int:
    """By how many places kernels' sums of a conv2d or linear are moved left."""
    dtype = graph.constant[node.inputs[1]].type.dtype
    assert isinstance(dtype, IntegerType)
    return arith.weight_places(dtype.bits)


def _magnitude(limits: tuple[int, int]) -> int:
    return max(abs(limits[0]), abs(limits[1]))


def _rounded(total: int, shift: int) -> int:
    return total + (1 << (shift - 1))


def _rescaled(limits: tuple[int, int], multiplier: int, shift: int) -> list[Bound]:
    """Bounds of a sum within ``limits`` that is multiplied in 64 bits; there is one more negative number than positive ones."""
    total = max(limits[1], -limits[0] - 1)
    return [("sum", total, _INT32), ("product", _rounded(_magnitude(limits) * multiplier, shift), _INT64)]


def _layer(graph: Graph, node: Node) -> list[Bound]:
    largest = int(arith.largest_partial_sum(*weight_rows(graph, node)).max()) << weight_places(graph, node)
    return [("partial sum", largest, arith.LARGEST_ACCUMULATOR)]


def _other(graph: Graph, node: Node) -> int:
    """The largest term of the other operand of a requantization that adds one."""
    return _magnitude(code_range(graph, node.inputs[-1])) * int(node["other_multiplier"])


def _wide(graph: Graph, node: Node, other: int = 0) -> list[Bound]:
    low, high = arith.accumulator_range(*weight_rows(graph, graph.producer[node.inputs[0]]))
    largest = np.maximum(np.abs(low), np.abs(high))
    multiplier = graph.constant[node.inputs[1]].data
    products = [int(a) * int(m) for a, m in zip(largest, multiplier, strict=True)]  # Python integers do not overflow
    return [("product", _rounded(max(products) + other, node["shift"]), _INT64)]


def _wide_add(graph: Graph, node: Node) -> list[Bound]:
    return _wide(graph, node, _other(graph, node))


def _narrow(graph: Graph, node: Node, other: int = 0) -> list[Bound]:
    if is_saturated(graph, node):
        return []  # a product may wrap around
    rows = weight_rows(graph, graph.producer[node.inputs[0]])
    multiplier, first, lower, upper = (graph.constant[name].data.astype(np.int64) for name in node.inputs[1:5])
    moved = int(arith.largest_partial_sum(*rows).max()) << max(-int(first.min(initial=0)), 0)
    ends = (arith.moved_right(np.clip(edge, lower, upper), first) for edge in arith.accumulator_range(*rows))
    reduced = np.maximum(*map(np.abs, ends))
    products = [int(t) * int(m) for t, m in zip(reduced, multiplier, strict=True)]
    folded = abs(node.output.zero or 0) << node["shift"] if other else 0
    return [("moved sum", moved, _INT32), ("narrow product", _rounded(max(products) + other + folded, node["shift"]), _INT32)]


def _narrow_add(graph: Graph, node: Node) -> list[Bound]:
    return _narrow(graph, node, _other(graph, node))


def _addition(graph: Graph, node: Node) -> list[Bound]:
    sizes = [_magnitude(code_range(graph, name)) for name in node.inputs]
    total = sum(size * abs(m) for size, m in zip(sizes, node["multipliers"], strict=True))
    return [("sum", _rounded(total, node["shift"]), _INT32)]


def _product(graph: Graph, node: Node, terms: int = 1) -> list[Bound]:
    a, b = (_magnitude(code_range(graph, name)) for name in node.inputs)
    return _rescaled((-a * b * terms, a * b * terms), node["multiplier"], node["shift"])


def _matrix_product(graph: Graph, node: Node) -> list[Bound]:
    return _product(graph, node, graph.type_of(node.inputs[0]).with_batch(1)[-1])


def _operand(graph: Graph, node: Node, terms: int, multiplier: int) -> list[Bound]:
    """Bounds of so many zero-free codes of the first operand, added and multiplied."""
    low, high = code_range(graph, node.inputs[0])
    return _rescaled((low * terms, high * terms), multiplier, node["shift"])


def _sum(graph: Graph, node: Node) -> list[Bound]:
    sizes = graph.type_of(node.inputs[0]).with_batch(1)
    return _operand(graph, node, prod(sizes[axis] for axis in node["axes"]), node["multiplier"])


def _resize(graph: Graph, node: Node) -> list[Bound]:
    return _operand(graph, node, prod(node["denominators"]), node["multiplier"])


def _prelu(graph: Graph, node: Node) -> list[Bound]:
    negative = map(abs, map(int, graph.constant[node.inputs[1]].data))
    return _operand(graph, node, 1, max(node["multiplier"], *negative))


def _average(graph: Graph, node: Node) -> list[Bound]:
    return _operand(graph, node, prod(node["kernel"]), max(node["multipliers"]))


def _rescale(graph: Graph, node: Node) -> list[Bound]:
    return _operand(graph, node, 1, node["multiplier"])


def _no_sums(graph: Graph, node: Node) -> list[Bound]:
    """Codes are moved, compared or looked up: nothing is computed from them."""
    return []


RULES: Final[Mapping[str, Callable[[Graph, Node], list[Bound]]]] = {
    "add": _addition,
    "amax": _no_sums,
    "amin": _no_sums,
    "argmax": _no_sums,
    "average_pool2d": _average,
    "concat": _no_sums,
    "conv2d": _layer,
    "embedding": _no_sums,
    "linear": _layer,
    "lookup": _no_sums,
    "matmul": _matrix_product,
    "max_pool2d": _no_sums,
    "maximum": _addition,
    "minimum": _addition,
    "mul": _product,
    "pad": _no_sums,
    "prelu": _prelu,
    "requantize": _wide,
    "requantize_add": _wide_add,
    "requantize_add_narrow": _narrow_add,
    "requantize_narrow": _narrow,
    "rescale": _rescale,
    "reshape": _no_sums,
    "resize_linear": _resize,
    "slice": _no_sums,
    "sum": _sum,
    "take": _no_sums,
    "topk_indices": _no_sums,
    "topk_values": _no_sums,
    "transpose": _no_sums,
}
"""The rule of every operator of the integer stage; there is no default."""


def bounds(graph: Graph, node: Node) -> list[Bound]:
    """What must hold for ``node``; InternalError for an operator without a rule."""
    if node.op not in RULES:
        raise InternalError(f"%{node.output.name} = {node.op}: the overflow proof has no rule for this operator")
    return RULES[node.op](graph, node)


def _constant_rules(graph: Graph, node: Node) -> list[str]:
    """Multipliers are 0 to 2^31 - 1, shifts 1 to 62, limits codes of the output's type."""
    problems: list[str] = []
    shift = node.get("shift")
    if shift is not None and not 1 <= shift <= arith.MAXIMUM_SHIFT:
        problems.append(f"shift {shift} is not in 1 .. {arith.MAXIMUM_SHIFT}")
    limits, dtype = node.get("limits"), node.output.type.dtype
    if limits is not None and isinstance(dtype, IntegerType) and not dtype.minimum <= limits[0] <= limits[1] <= dtype.maximum:
        problems.append(f"limits {limits} are not codes of {dtype}")
    given = [*node.get("multipliers", ()), node.get("multiplier", 0), node.get("other_multiplier", 0)]
    if node.op.startswith("requantize"):
        constant = graph.constant[node.inputs[1]]
        given += [int(constant.data.min()), int(constant.data.max())]
    if node.op == "add":
        given = [abs(m) for m in given]  # a subtraction has a negative one
    if not all(0 <= m <= I32.maximum for m in given):
        problems.append(f"multipliers {min(given)} to {max(given)} are not in 0 .. 2^31 - 1")
    if node.op == "lookup" and isinstance(dtype, IntegerType):
        table = graph.constant[node.inputs[1]].data
        if not dtype.minimum <= int(table.min()) <= int(table.max()) <= dtype.maximum:
            problems.append(f"table entries {table.min()} to {table.max()} are not codes of {dtype}")
    return problems


def _problems(graph: Graph, node: Node) -> list[str]:
    """What is wrong with one node; bounds are computed for constants that make sense."""
    return _constant_rules(graph, node) or [
        f"a {what} can reach {size}, the limit is {limit}" for what, size, limit in bounds(graph, node) if size > limit
    ]


@dataclass(frozen=True)
class ProveOverflow:
    """Runs over every node; keeps nothing."""

    name: str = "prove_overflow"
    requires: Stage = Stage.INTEGER
    gives: Stage = Stage.INTEGER

    def __call__(self, graph: Graph) -> Graph:
        failed = [f"%{node.output.name} = {node.op}: {problem}" for node in graph.nodes for problem in _problems(graph, node)]
        if failed:
            raise InternalError(f"graph {graph.name}: the overflow proof fails:\n  " + "\n  ".join(failed))
        return graph
