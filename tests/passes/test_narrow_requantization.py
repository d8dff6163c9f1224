"""The narrow form against the wide one: every intermediate fits int32, and the codes deviate by less than a fiftieth of a step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler import arith
from qcompiler.interpret import run_integer
from qcompiler.ir.dtypes import I32, U8, IntegerType
from qcompiler.ir.graph import Constant, Graph, Node, Stage, TensorType, Value
from qcompiler.ops.requantize import is_add_short, is_saturated, is_short
from qcompiler.passes.narrow_requantization import NarrowRequantization
from qcompiler.passes.prove_overflow import ProveOverflow


def one_layer(
    codes: np.ndarray, bias: np.ndarray, factors: np.ndarray, residual: float | None, zero: int, limits: tuple[int, int]
) -> Graph:
    """x -> linear -> requantize(_add), wide."""
    outputs, inputs = codes.shape
    real = factors if residual is None else np.append(factors, residual)
    multiplier, shift = arith.dyadic(real, arith.MULTIPLIER_BITS)
    values = [Value("x", TensorType(U8, ("N", inputs)), scale=1.0, zero=0)]
    constants = [
        Constant("y.weight", TensorType(IntegerType(8, True), codes.shape), codes.astype(np.int8)),
        Constant("y.bias", TensorType(I32, (outputs,)), bias.astype(np.int32)),
        Constant("y.multiplier", TensorType(I32, (outputs,)), multiplier[:outputs].astype(np.int32)),
    ]
    y = Value("y", TensorType(U8, ("N", outputs)), scale=1.0, zero=zero)
    total = Node("linear", ("x", "y.weight", "y.bias"), (Value("y.sum", TensorType(I32, ("N", outputs))),))
    attributes = [("limits", limits), ("shift", shift)]
    operands = ["y.sum", "y.multiplier"]
    if residual is not None:
        values.append(Value("r", TensorType(U8, ("N", outputs)), scale=1.0, zero=7))
        operands.append("r")
        attributes.append(("other_multiplier", int(multiplier[-1])))
    op = "requantize" if residual is None else "requantize_add"
    return Graph(
        "g", Stage.INTEGER, tuple(values), tuple(constants), (total, Node(op, tuple(operands), (y,), tuple(attributes))), ("y",)
    )


layers = st.builds(
    one_layer,
    st.integers(0, 2**31).map(lambda s: np.random.default_rng(s).integers(-127, 128, (5, 40))),
    st.integers(0, 2**31).map(lambda s: np.random.default_rng(s).integers(-(2**18), 2**18, 5)),
    st.lists(st.floats(1e-5, 0.5), min_size=5, max_size=5).map(np.array),
    st.one_of(st.none(), st.floats(0.1, 2.0)),
    st.sampled_from([0, 100, 255]),
    st.sampled_from([(0, 255), (100, 255), (0, 15)]),
)


@settings(max_examples=150, deadline=None)
@given(layers, st.integers(0, 2**31))
def test_narrow_and_wide_differ_by_one_code_at_most_and_rarely(graph: Graph, seed: int) -> None:
    narrow = ProveOverflow()(NarrowRequantization()(ProveOverflow()(graph)))
    if narrow == graph:
        return  # not provable: stays wide
    generator = np.random.default_rng(seed)
    x = generator.integers(0, 256, (64, 40))
    x[0], x[1] = 0, 255
    inputs = [x, generator.integers(0, 256, (64, 5))][: len(graph.inputs)]
    wide, small = (run_integer(g, inputs)[0].astype(int) for g in (graph, narrow))
    assert np.abs(wide - small).max() <= 1
    assert (wide != small).mean() <= 0.08  # a fiftieth of a step on either side of every boundary is 4 %


def test_typical_layers_are_narrow() -> None:
    generator = np.random.default_rng(0)
    codes, bias = generator.integers(-127, 128, (16, 576)), generator.integers(-9999, 9999, 16)
    for residual in (None, 0.8):
        graph = one_layer(codes, bias, generator.uniform(5e-4, 5e-3, 16), residual, 0, (0, 255))
        ops = [node.op for node in NarrowRequantization()(graph).nodes]
        assert ops[-1].endswith("narrow")


@pytest.mark.parametrize(
    ("inputs", "factors", "limits", "form"),
    [
        (576, (5e-4, 5e-3), (0, 255), "short"),
        (9, (1e-2, 5e-2), (0, 255), "short"),  # a depthwise layer: few products, large factors
        (576, (5e-4, 5e-3), (0, 15), "saturated"),
        (576, (5e-4, 5e-3), (100, 255), "saturated"),
        (576, (0.26, 0.4), (0, 255), "saturated"),  # a step of the sums is too large for 16 bits of a multiplier
    ],
)
def test_which_form_is_chosen(inputs: int, factors: tuple[float, float], limits: tuple[int, int], form: str) -> None:
    generator = np.random.default_rng(1)
    codes, bias = generator.integers(-127, 128, (16, inputs)), generator.integers(-9999, 9999, 16)
    graph = NarrowRequantization()(one_layer(codes, bias, generator.uniform(*factors, 16), None, 100, limits))
    assert is_short(graph, graph.nodes[-1]) == (form == "short")
    assert is_saturated(graph, graph.nodes[-1]) == (form == "saturated")


@pytest.mark.parametrize(
    ("other_factor", "limits", "short"),
    [(0.8, (0, 255), True), (1.3, (0, 255), True), (0.8, (0, 15), False), (30.0, (0, 255), False)],
)
def test_which_form_an_addition_has(other_factor: float, limits: tuple[int, int], short: bool) -> None:
    generator = np.random.default_rng(1)
    codes, bias = generator.integers(-127, 128, (16, 576)), generator.integers(-9999, 9999, 16)
    graph = one_layer(codes, bias, generator.uniform(1e-4, 1e-3, 16), other_factor, 0, limits)
    narrow = ProveOverflow()(NarrowRequantization()(graph))
    assert is_add_short(narrow, narrow.nodes[-1]) == short


def test_wide_outputs_stay_wide() -> None:
    graph = one_layer(np.ones((1, 2)), np.zeros(1), np.array([0.1]), None, 0, (0, 255))
    (sums, node) = graph.nodes
    wide = Value("y", TensorType(IntegerType(16, True), ("N", 1)), scale=1.0, zero=0)
    changed = Graph(
        "g", Stage.INTEGER, graph.inputs, graph.constants, (sums, Node(node.op, node.inputs, (wide,), node.attributes)), ("y",)
    )
    assert NarrowRequantization()(changed) == changed


@pytest.mark.parametrize("factor", [0.0, 1e-9])
def test_constant_channels_survive(factor: float) -> None:
    graph = one_layer(np.full((2, 3), 5), np.array([3, 4]), np.array([factor, 0.25]), None, 9, (0, 255))
    narrow = ProveOverflow()(NarrowRequantization()(graph))
    x = np.array([[0, 0, 0], [255, 255, 255]])
    assert np.array_equal(run_integer(graph, [x])[0], run_integer(narrow, [x])[0])
