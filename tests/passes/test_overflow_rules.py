"""Every operator of the integer stage has a rule of the overflow proof, and what the reference computes stays within it."""

from __future__ import annotations

import itertools
from typing import Any, Final

import numpy as np
import pytest

from qcompiler import arith
from qcompiler.errors import InternalError
from qcompiler.interpret import run_integer
from qcompiler.ir.dtypes import I16, I32, IntegerType
from qcompiler.ir.graph import Array, Constant, Graph, Node, Stage, TensorType, Value
from qcompiler.ir.text import parse_graph
from qcompiler.ops.table import OPERATORS
from qcompiler.passes.prove_overflow import RULES, ProveOverflow, bounds

TERMS: Final = "limits=(0, 255), multiplier=1234567, shift=24"
PAIR: Final = "limits=(0, 255), multipliers=(70001, 90001), shift=20"
SUMS: Final = """  const %w: i8[2,3] = [127, -127, 5, -1, -2, -3]
  const %b: i32[2] = [-100, 77]
  const %m: i32[2] = [MULTIPLIERS]
  const %p: i32[2] = [1, 2]
  const %lo: i32[2] = [-60000, -900]
  const %hi: i32[2] = [50000, 700]
  %s: i32[N,2] = linear(%x, %w, %b)
"""
WIDE: Final = SUMS.replace("MULTIPLIERS", "2000000000, 1000000000")
NARROW: Final = SUMS.replace("MULTIPLIERS", "30001, 20001")

CASES: Final[dict[str, tuple[str, str, str]]] = {
    # operator: shapes and zero points of the inputs, what comes before it, its line
    "add": ("u8[N,2] 3, u8[N,2] 250", "", f"u8[N,2] 9 = add(%x, %z, {PAIR})"),
    "amax": ("u8[N,2,3] 3", "", "u8[N,3] 3 = amax(%x, axes=(1,), keepdims=0)"),
    "amin": ("u8[N,2,3] 3", "", "u8[N,3] 3 = amin(%x, axes=(1,), keepdims=0)"),
    "argmax": ("u8[N,2,3] 3", "", "i32[N,3] 0 = argmax(%x, axis=1, keepdims=0)"),
    "average_pool2d": (
        "u8[N,1,3,3] 200",
        "",
        "u8[N,1,1,1] 9 = average_pool2d(%x, ceil_mode=0, count_include_pad=0, counts=(9,), kernel=(3, 3), limits=(0, 255), "
        "multipliers=(99999999,), padding=(0, 0, 0, 0), shift=28, strides=(1, 1))",
    ),
    "concat": ("u8[N,2] 3, u8[N,2] 3", "", "u8[N,4] 3 = concat(%x, %z, axis=1)"),
    "conv2d": (
        "u8[N,3,1,1] 3",
        SUMS.replace("MULTIPLIERS", "1, 2").replace("i8[2,3]", "i8[2,3,1,1]").partition("  %s")[0],
        "i32[N,2,1,1] = conv2d(%x, %w, %b, dilation=(1, 1), groups=1, padding=(0, 0, 0, 0), strides=(1, 1))",
    ),
    "embedding": ("i32[N,2] 0", "  const %t: u8[2,2] = [1, 2, 3, 4]\n", "u8[N,2,2] 3 = embedding(%x, %t)"),
    "linear": ("u8[N,3] 3", WIDE.partition("  %s")[0], "i32[N,2] = linear(%x, %w, %b)"),
    "lookup": ("u4[N,2] 3", f"  const %t: u8[16] = [{', '.join(map(str, range(16)))}]\n", "u8[N,2] 3 = lookup(%x, %t)"),
    "matmul": ("u8[N,2,3] 3, u8[N,3,2] 250", "", f"u8[N,2,2] 9 = matmul(%x, %z, {TERMS})"),
    "max_pool2d": (
        "u8[N,1,3,3] 3",
        "",
        "u8[N,1,1,1] 3 = max_pool2d(%x, ceil_mode=0, dilation=(1, 1), kernel=(3, 3), padding=(0, 0, 0, 0), strides=(1, 1))",
    ),
    "maximum": ("u8[N,2] 3, u8[N,2] 3", "", f"u8[N,2] 9 = maximum(%x, %z, {PAIR})"),
    "minimum": ("u8[N,2] 3, u8[N,2] 250", "", f"u8[N,2] 9 = minimum(%x, %z, {PAIR})"),
    "mul": ("u8[N,2] 3, u8[N,2] 250", "", f"u8[N,2] 9 = mul(%x, %z, {TERMS})"),
    "pad": ("u8[N,2] 3", "", "u8[N,4] 3 = pad(%x, after=(0, 1), before=(0, 1), code=7)"),
    "prelu": ("u8[N,2] 200", "  const %t: i32[2] = [-2000001, 7]\n", f"u8[N,2] 9 = prelu(%x, %t, {TERMS})"),
    "requantize": ("u8[N,3] 3", WIDE, "i16[N,2] 0 = requantize(%s, %m, limits=(-32768, 32767), shift=40)"),
    "requantize_add": (
        "u8[N,3] 3, u8[N,2] 250",
        WIDE,
        "u8[N,2] 9 = requantize_add(%s, %m, %z, limits=(0, 255), other_multiplier=1999999999, shift=40)",
    ),
    "requantize_add_narrow": (
        "u8[N,3] 3, u8[N,2] 250",
        NARROW,
        "u8[N,2] 9 = requantize_add_narrow(%s, %m, %p, %lo, %hi, %z, limits=(0, 255), other_multiplier=50001, shift=20)",
    ),
    "requantize_narrow": (
        "u8[N,3] 3",
        NARROW,
        "i8[N,2] 9 = requantize_narrow(%s, %m, %p, %lo, %hi, limits=(-128, 127), shift=20)",
    ),
    "rescale": ("u8[N,2] 250", "", f"u8[N,2] 9 = rescale(%x, {TERMS})"),
    "reshape": ("u8[N,2] 3", "", 'u8[N,2,1] 3 = reshape(%x, shape=("N", 2, 1))'),
    "resize_linear": (
        "u8[N,1,2,2] 200",
        "",
        "u8[N,1,4,4] 200 = resize_linear(%x, denominators=(4, 4), multiplier=67108864, numerators=(2, 2), offsets=(-1, -1), "
        "shift=30, sizes=(4, 4))",
    ),
    "slice": ("u8[N,2] 3", "", "u8[N,1] 3 = slice(%x, axes=(1,), starts=(0,), steps=(1,), stops=(1,))"),
    "sum": ("u8[N,2,3] 200", "", f"u8[N,3] 9 = sum(%x, axes=(1,), keepdims=0, {TERMS})"),
    "take": ("u8[N,2] 3", "  const %t: i32[3] = [1, 0, 1]\n", "u8[N,3] 3 = take(%x, %t, axis=1)"),
    "topk_indices": ("u8[N,3] 3", "", "i32[N,2] 0 = topk_indices(%x, axis=1, k=2)"),
    "topk_values": ("u8[N,3] 3", "", "u8[N,2] 3 = topk_values(%x, axis=1, k=2)"),
    "transpose": ("u8[N,2,3] 3", "", "u8[N,3,2] 3 = transpose(%x, order=(0, 2, 1))"),
}


def case_graph(op: str) -> Graph:
    """The graph of a case; a zero point stands behind a type."""
    inputs, before, line = CASES[op]
    kinds = [kind.rpartition(" ") for kind in inputs.split(", ")]
    values = ", ".join(f"%{n}: {kind} scale=0x1p-3 zero={zero}" for n, (kind, _, zero) in zip("xz", kinds, strict=False))
    kind, equals, call = line.partition(" = ")
    kind, _, zero = kind.partition(" ")
    coded = f"{kind} scale=0x1p-3 zero={zero}" if zero else kind
    text = f"graph @g stage=integer ({values}) {{\n{before}  %y: {coded}{equals}{call}\n  return %y\n}}\n"
    return parse_graph(text)


def extremes(value: Value) -> list[Array]:
    """Inputs of the smallest codes, of the largest, and of every mixture of them over the channels or the last axis."""
    dtype, shape = value.type.dtype, value.type.with_batch(1)
    assert isinstance(dtype, IntegerType)
    ends = (0, 1) if dtype == I32 else (dtype.minimum, dtype.maximum)
    along = shape[1] if shape[2:] == (1, 1) else shape[-1]
    mixtures = map(np.array, itertools.product(ends, repeat=along))
    return [np.broadcast_to(x.reshape(-1, 1, 1) if along == shape[1] and len(shape) == 4 else x, shape) for x in mixtures]


def test_every_operator_has_a_rule_and_a_case() -> None:
    integer = {name for name, operator in OPERATORS.items() if Stage.INTEGER in operator.stages}
    assert set(RULES) == integer
    assert set(CASES) == integer


def test_an_operator_without_a_rule_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcompiler.passes.prove_overflow.RULES", {})
    with pytest.raises(InternalError, match=r"%y = mul: the overflow proof has no rule for this operator"):
        ProveOverflow()(case_graph("mul"))


@pytest.mark.parametrize("op", CASES)
def test_the_reference_stays_within_the_bounds(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all mixtures of extreme codes: what is rounded, and partial sums in the worst order; and no bound is far too wide."""
    graph = case_graph(op)
    assert ProveOverflow()(graph) is graph
    rounded: list[int] = []
    plain = arith.round_shift

    def watched(value: Any, shift: Any, math_: Any) -> Any:
        rounded.append(int(np.abs(np.asarray(value) + (np.int64(1) << (np.asarray(shift) - 1))).max()))
        return plain(value, shift, math_)

    monkeypatch.setattr(arith, "round_shift", watched)
    sums: list[int] = []
    for inputs in itertools.product(*map(extremes, graph.inputs)):
        run_integer(graph, inputs, lambda node, result: sums.append(int(np.abs(result).max())) if node.op == op else None)
    (node,) = (node for node in graph.nodes if node.output.name == "y")
    found = bounds(graph, node)
    if not found:
        assert not rounded  # nothing is computed
        return
    what, size, _ = found[-1]
    seen = max(sums) if what == "partial sum" else max(rounded)
    assert 0.5 * size <= seen <= size


@pytest.mark.parametrize("signed", [False, True])
def test_partial_sums_of_layers_stay_within_the_bound_in_any_order(signed: bool) -> None:
    """Every subset of the terms, as unsigned and as signed bytes, with codes of 8, 4 and 2 bits as kernels move them."""
    generator = np.random.default_rng(0)
    for bits, places in ((8, 0), (4, 4), (2, 6)):
        low, high = (-127, 127) if bits == 8 else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        rows, start = generator.integers(low, high + 1, (6, 5)), generator.integers(-3000, 3000, 6)
        rows[0], rows[1] = low, high
        weight = Constant("w", TensorType(IntegerType(bits, signed=True), rows.shape), rows.astype(np.int8))
        bias = Constant("b", TensorType(I32, start.shape), start.astype(np.int32))
        x = Value("x", TensorType(IntegerType(8, signed=False), ("N", 5)), scale=1.0, zero=0)
        node = Node("linear", ("x", "w", "b"), (Value("y", TensorType(I32, ("N", 6))),))
        graph = Graph("g", Stage.INTEGER, (x,), (weight, bias), (node,), ("y",))
        begin = start + 128 * rows.sum(axis=1) if signed else start
        edges = (-128, 127) if signed else (0, 255)
        terms = np.stack([rows * edge for edge in edges])  # [edges, O, K]
        worst = np.maximum(np.abs(begin + terms.max(0).clip(0).sum(1)), np.abs(begin + terms.min(0).clip(None, 0).sum(1)))
        ((_, size, _),) = bounds(graph, node)
        assert worst.max() << places <= size


def test_wide_operands_count() -> None:
    """A rule reads the operand's own type: codes of 16 bits, constants by their data."""
    x = Value("x", TensorType(I16, ("N", 2)), scale=1.0, zero=0)
    c = Constant("c", TensorType(I16, (1, 2)), np.array([[-7, 3]], np.int16), scale=np.array([1.0]))
    y = Value("y", TensorType(I16, ("N", 2)), scale=1.0, zero=0)
    node = Node("mul", ("x", "c"), (y,), (("limits", (-9, 9)), ("multiplier", 5), ("shift", 3)))
    graph = Graph("g", Stage.INTEGER, (x,), (c,), (node,), ("y",))
    assert bounds(graph, node)[0][1] == 7 * 32768
