"""Every operator of the float stages in ONNX Runtime against torch, and of the integer stage against the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcompiler.exporters.onnx_model import to_onnx
from qcompiler.exporters.table import EMITTERS
from qcompiler.interpret import run_float
from qcompiler.ir.dtypes import F32, I32, IntegerType
from qcompiler.ir.graph import Array, Attribute, Constant, Graph, Node, Stage, TensorType, Value
from qcompiler.ops.operator import INTEGER_STAGE
from qcompiler.ops.table import OPERATORS
from qcompiler.pipeline import Settings, to_integer

from .conftest import compare, run_onnx

IMAGE = (4, 6, 7)
CONV = {"strides": (2, 1), "padding": (1, 0, 2, 1), "dilation": (1, 2), "groups": 2}
POOL = {"kernel": (3, 2), "strides": (2, 2), "padding": (1, 1, 0, 1)}
RESIZE = {"sizes": (12, 14), "numerators": (2, 2), "offsets": (-1, -1), "denominators": (4, 4)}


def fixed(name: str, *shape: int, integers: int | None = None) -> Constant:
    generator = np.random.default_rng(len(name) + sum(shape))
    if integers is not None:
        return Constant(name, TensorType(I32, shape), generator.integers(0, integers, shape).astype(np.int32))
    return Constant(name, TensorType(F32, shape), generator.normal(size=shape).astype(np.float32))


# op, shapes of the samples, constants, attributes
FLOAT: list[tuple[str, list[tuple[int, ...]], list[Constant], dict[str, Attribute]]] = [
    ("add", [IMAGE, IMAGE], [], {"clamp": (0.0, 1.5)}),
    ("add", [IMAGE], [fixed("c", 4, 1, 1)], {"clamp": (float("-inf"), 0.5)}),
    ("amax", [IMAGE], [], {"axes": (2, 3), "keepdims": 1}),
    ("amin", [IMAGE], [], {"axes": (1,), "keepdims": 0}),
    ("argmax", [IMAGE], [], {"axis": 1, "keepdims": 0, "largest": 0, "last": 1}),
    ("average_pool2d", [IMAGE], [], {**POOL, "ceil_mode": 1, "count_include_pad": 1}),
    ("average_pool2d", [IMAGE], [], {**POOL, "ceil_mode": 1, "count_include_pad": 0}),
    ("average_pool2d", [(4, 2, 6, 7)], [], {**POOL, "ceil_mode": 0, "count_include_pad": 1}),
    ("batch_norm", [IMAGE], [fixed("g", 4), fixed("b", 4), fixed("m", 4), Constant("v", TensorType(F32, (4,)), np.ones(4, np.float32))], {"epsilon": 1e-3}),
    ("clip", [IMAGE], [], {"clamp": (0.0, float("inf"))}),
    ("clip", [IMAGE], [], {"clamp": (-0.5, 0.25)}),
    ("concat", [IMAGE, (2, 6, 7)], [], {"axis": 1}),
    ("concat", [IMAGE], [fixed("c", 1, 3, 6, 7)], {"axis": 1}),
    ("conv2d", [IMAGE], [fixed("w", 6, 2, 3, 2), fixed("b", 6)], {**CONV, "clamp": (0.0, 6.0)}),
    ("conv2d", [(4, 3, 6, 7)], [fixed("w", 6, 2, 3, 2)], {**CONV}),
    ("conv3d", [(4, 5, 6, 7)], [fixed("w", 6, 2, 3, 2, 3), fixed("b", 6)], {"strides": (1, 2, 1), "padding": (1, 0, 1, 0, 2, 1), "dilation": (1, 1, 2), "groups": 2}),
    ("conv_transpose2d", [IMAGE], [fixed("w", 4, 3, 3, 2), fixed("b", 6)], {"strides": (2, 3), "padding": (1, 0, 1, 1), "dilation": (1, 1), "groups": 2, "output_padding": (1, 0)}),
    ("embedding", [(5,)], [fixed("t", 3, 8)], {}),
    ("function", [IMAGE], [], {"expression": "x * sigmoid(x) - gt(x, 0.5) / 3 + max(-x, 1 - 0.5)"}),
    ("function", [IMAGE], [], {"expression": "2 * 3"}),
    ("identity", [IMAGE], [], {}),
    ("linear", [(5,)], [fixed("w", 3, 5), fixed("b", 3)], {}),
    ("linear", [(2, 5)], [fixed("w", 3, 5), fixed("b", 3)], {"clamp": (0.0, float("inf"))}),
    ("matmul", [(2, 3, 4), (1, 4, 5)], [], {}),
    ("max_pool2d", [IMAGE], [], {**POOL, "dilation": (1, 2), "ceil_mode": 1}),
    ("max_pool2d", [(4, 2, 6, 7)], [], {**POOL, "dilation": (1, 1), "ceil_mode": 0}),
    ("maximum", [IMAGE, IMAGE], [], {}),
    ("mean", [IMAGE], [], {"axes": (2, 3), "keepdims": 0}),
    ("minimum", [IMAGE], [fixed("c", 1)], {}),
    ("mul", [IMAGE, (4, 1, 1)], [], {}),
    ("pad", [IMAGE], [], {"before": (0, 1, 0, 2), "after": (0, 0, 1, 3), "value": 0.75}),
    ("prelu", [IMAGE], [fixed("s", 4)], {}),
    ("quantizer", [IMAGE], [], {"clamp": (-0.5, 0.25), "step": 0.01}),
    ("reshape", [IMAGE], [], {"shape": ("N", 168)}),
    ("resize_linear", [IMAGE], [], RESIZE),
    ("resize_linear", [IMAGE], [], {**RESIZE, "offsets": (0, -1)}),
    ("slice", [IMAGE], [], {"axes": (2, 3), "starts": (5, 1), "stops": (-1, 6), "steps": (-2, 3)}),
    ("sub", [IMAGE, IMAGE], [], {}),
    ("sum", [IMAGE], [], {"axes": (1,), "keepdims": 1, "factor": 0.25}),
    ("take", [IMAGE], [fixed("i", 9, integers=4)], {"axis": 1}),
    ("topk_indices", [(9,)], [], {"axis": 1, "k": 3, "largest": 1}),
    ("topk_values", [(9,)], [], {"axis": 1, "k": 3, "largest": 0}),
    ("transpose", [IMAGE], [], {"order": (0, 2, 3, 1)}),
]  # fmt: skip


def float_graph(op: str, shapes: list[tuple[int, ...]], constants: list[Constant], attributes: dict[str, Attribute]) -> Graph:
    inputs = tuple(Value(f"x{i}", TensorType(F32, ("N", *shape))) for i, shape in enumerate(shapes))
    operands = [*inputs, *constants]
    names = tuple(o.name for o in operands)
    draft = Node(op, names, (Value("y", TensorType(F32, ())),), tuple(attributes.items()), "layer")
    node = Node(op, names, (Value("y", OPERATORS[op].infer(draft, operands)),), tuple(attributes.items()), "layer")
    return Graph("g", Stage.FLOAT, inputs, tuple(constants), (node,), ("y",))


@pytest.mark.parametrize(("op", "shapes", "constants", "attributes"), FLOAT, ids=[f"{c[0]}-{i}" for i, c in enumerate(FLOAT)])
def test_float_operators(
    op: str, shapes: list[tuple[int, ...]], constants: list[Constant], attributes: dict[str, Attribute]
) -> None:
    graph = float_graph(op, shapes, constants, attributes)
    generator = np.random.default_rng(3)
    arrays = [generator.normal(size=(3, *shape)).astype(np.float32) for shape in shapes]
    if op == "embedding":
        arrays = [np.array([[0, 2, 1, 7, -1]] * 3, np.float32)]
    expected = run_float(graph, [torch.from_numpy(x) for x in arrays])[0].numpy()
    model = to_onnx(graph)
    found = run_onnx(model, *arrays)[0]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert "layer" in {node.name for node in model.graph.node}


def test_every_operator_has_an_emitter_and_a_test() -> None:
    assert set(EMITTERS) == set(OPERATORS)
    floats = {name for name, operator in OPERATORS.items() if operator.stages != INTEGER_STAGE}
    assert {case[0] for case in FLOAT} == floats


def value(
    name: str, shape: tuple[int, ...], bits: int = 8, scale: float = 0.05, zero: int | None = None, signed: bool = False
) -> Value:
    zero = (0 if signed else 1 << (bits - 2)) if zero is None else zero
    return Value(name, TensorType(IntegerType(bits, signed), ("N", *shape)), scale=scale, zero=zero)


def codes(name: str, data: Array, dtype: IntegerType = I32, scale: Array | None = None) -> Constant:
    return Constant(name, TensorType(dtype, tuple(data.shape)), data.astype(dtype.container), scale=scale)


def function_codes(bits: int) -> Array:
    x = (np.arange(1 << bits) - (1 << (bits - 2))) * 0.05 * (16 if bits == 4 else 1)
    top = (1 << bits) - 1
    return np.clip(np.floor(x * 0.8 / (0.05 * (16 if bits == 4 else 1)) + 0.5) + (1 << (bits - 2)), 0, top)


def integer_graph_of(
    op: str, bits: int, inputs: list[Value], constants: list[Constant], shape: tuple[int, ...], attributes: dict[str, Attribute]
) -> Graph:
    y = value("y", shape, bits, 0.05 if bits == 8 else 0.8)
    node = Node(op, tuple(o.name for o in (*inputs, *constants)), (y,), tuple(attributes.items()), "layer")
    return Graph("g", Stage.INTEGER, tuple(inputs), tuple(constants), (node,), ("y",))


def integer_cases(bits: int) -> dict[str, Graph]:
    """One node each: x and y have the same scale and zero point, and so have two operands."""
    top, scale = (1 << bits) - 1, 0.05 if bits == 8 else 0.8
    one = 1 << 12
    zero = 1 << (bits - 2)
    tail: dict[str, Attribute] = {"limits": (0, top), "shift": 12}

    def x(shape: tuple[int, ...] = IMAGE, name: str = "x") -> Value:
        return value(name, shape, bits, scale)

    def make(
        op: str, inputs: list[Value], constants: list[Constant], shape: tuple[int, ...], attributes: dict[str, Attribute]
    ) -> Graph:
        return integer_graph_of(op, bits, inputs, constants, shape, attributes)

    u = IntegerType(bits, signed=False)
    indices = Value("i", TensorType(I32, ("N", 5)), scale=1.0, zero=0)
    small = np.arange(4).reshape(4, 1, 1)
    return {
        "add": make("add", [x(), x(name="z")], [], IMAGE, {**tail, "multipliers": (one, one)}),
        "add-limits": make("add", [x(), x(name="z")], [], IMAGE, {"shift": 12, "limits": (zero, top - 3), "multipliers": (one, one)}),
        "add-constant": make("add", [x()], [codes("c", small, IntegerType(8, True), np.array([scale]))], IMAGE, {**tail, "multipliers": (one, one)}),
        "add-negative": make(
            "add", [x(), x(name="z")], [], IMAGE, {**tail, "multipliers": (-one, one)}
        ),
        "sub": make("add", [x(), x(name="z")], [], IMAGE, {**tail, "multipliers": (one, -one)}),
        "embedding": make("embedding", [indices], [codes("t", np.arange(24).reshape(8, 3) % 13, u, np.array([scale]))], (5, 3), {}),
        "mul": make("mul", [x(), x((4, 1, 1), "z")], [], IMAGE, {**tail, "multiplier": round(one * scale)}),
        "maximum": make("maximum", [x(), x(name="z")], [], IMAGE, {**tail, "multipliers": (one, one)}),
        "minimum": make("minimum", [x(), x(name="z")], [], IMAGE, {**tail, "multipliers": (one, one)}),
        "prelu": make("prelu", [x()], [codes("s", np.array([1024, 0, 400, -800]))], IMAGE, {**tail, "multiplier": one}),
        "lookup": make("lookup", [x()], [codes("t", function_codes(bits), u)], IMAGE, {"expression": "0.8 * x"}),
        "lookup-table": make("lookup", [x()], [codes("t", function_codes(bits), u)], IMAGE, {}),
        "lookup-undefined": make("lookup", [x()], [codes("t", np.full(1 << bits, 5), u)], IMAGE, {"expression": "log(x)"}),
        "concat": make("concat", [x(), x((2, 6, 7), "z")], [], (6, 6, 7), {"axis": 1}),
        "concat-constant": make("concat", [x()], [codes("c", np.full((1, 2, 6, 7), 3), u, np.array([scale]))], (6, 6, 7), {"axis": 1}),
        "transpose": make("transpose", [x()], [], (6, 7, 4), {"order": (0, 2, 3, 1)}),
        "take": make("take", [x()], [fixed("i", 9, integers=4)], (9, 6, 7), {"axis": 1}),
        "slice": make("slice", [x()], [], (4, 3, 7), {"axes": (2,), "starts": (5,), "stops": (-1,), "steps": (-2,)}),
        "pad": make("pad", [x()], [], (4, 7, 9), {"before": (0, 0, 0, 2), "after": (0, 0, 1, 0), "code": 2}),
        "reshape": make("reshape", [x()], [], (168,), {"shape": ("N", 168)}),
        "max_pool2d": make("max_pool2d", [x()], [], (4, 3, 4), {**POOL, "dilation": (1, 1), "ceil_mode": 0}),
        "average_pool2d": make("average_pool2d", [x()], [], (4, 3, 4), {**tail, **POOL, "ceil_mode": 0, "count_include_pad": 1, "counts": (2, 4, 6), "multipliers": (one // 2, one // 4, one // 6)}),
        "sum": make("sum", [x()], [], (4, 1, 1), {**tail, "axes": (2, 3), "keepdims": 1, "multiplier": one // 42}),
        "amax": make("amax", [x()], [], (6, 7), {"axes": (1,), "keepdims": 0}),
        "amin": make("amin", [x()], [], (1, 6, 7), {"axes": (1,), "keepdims": 1}),
        "matmul": make("matmul", [x((2, 3, 4)), x((2, 4, 5), "z")], [], (2, 3, 5), {**tail, "multiplier": round(one * scale)}),
        "resize_linear": make("resize_linear", [x()], [], (4, 12, 14), {**RESIZE, "multiplier": one // 16, "shift": 12}),
        "rescale": make("rescale", [x()], [], IMAGE, {"limits": (1, top), "shift": 12, "multiplier": one}),
        "topk_values": make("topk_values", [x((9,))], [], (3,), {"axis": 1, "k": 3}),
    }  # fmt: skip


@pytest.mark.parametrize("optimized", [True, False], ids=["optimized", "plain"])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("case", list(integer_cases(8)))
def test_integer_operators(case: str, bits: int, optimized: bool) -> None:
    graph = integer_cases(bits)[case]
    generator = np.random.default_rng(5)
    top = 200 if bits == 8 else 12
    arrays = []
    for v in graph.inputs:
        assert v.scale is not None
        arrays.append(((generator.integers(0, top, v.type.with_batch(3)) - (v.zero or 0)) * v.scale).astype(np.float32))
    found = compare(graph, to_onnx(graph), *arrays, optimized=optimized)
    assert found.expected.shape == found.found.shape
    assert np.ptp(found.expected) > 0 or case == "lookup-undefined"
    assert found.within(1.01) == 1.0
    assert found.within(0.01) > (0.8 if case in ("mul", "matmul", "average_pool2d", "resize_linear") else 0.9)


@pytest.mark.parametrize(("op", "shapes", "constants", "attributes"), FLOAT, ids=[f"{c[0]}-{i}" for i, c in enumerate(FLOAT)])
def test_quantized_operators(
    op: str, shapes: list[tuple[int, ...]], constants: list[Constant], attributes: dict[str, Attribute]
) -> None:
    generator = np.random.default_rng(3)
    arrays = [generator.normal(size=(16, *shape)).astype(np.float32) for shape in shapes]
    if op == "embedding":
        arrays = [generator.integers(0, 3, (16, 5)).astype(np.float32)]
    samples = {f"x{i}": x for i, x in enumerate(arrays)}
    settings = Settings(samples, output_bits=8)
    graph = to_integer(float_graph(op, shapes, constants, attributes), settings)
    for optimized in (True, False):
        found = compare(graph, to_onnx(graph), *arrays, optimized=optimized)
        if op not in ("argmax", "topk_indices"):  # where one code decides
            assert found.within(1.01) > 0.99
        assert found.within(0.01) > 0.8
