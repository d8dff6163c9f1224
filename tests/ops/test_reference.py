"""The integer reference against plain Python loops and torch in float64, on random and extreme inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch.nn import functional

from qcompiler.errors import InternalError
from qcompiler.interpret import dequantize, quantize_input, run_float, run_integer
from qcompiler.ir.dtypes import F32, I32, U8, IntegerType
from qcompiler.ir.graph import Array, Attribute, Constant, Graph, Node, Stage, TensorType, Value
from qcompiler.ops.operator import TypeRuleError
from qcompiler.ops.table import OPERATORS


def _inputs(shape: tuple[int, ...], high: int = 255) -> list[Array]:
    generator = np.random.default_rng(7)
    return [generator.integers(0, high + 1, shape), np.zeros(shape, np.int64), np.full(shape, high)]


def _run(
    op: str,
    attributes: dict[str, Attribute],
    x: Array,
    out: Value,
    x_zero: int = 3,
    *more: Value | Constant,
    arrays: Sequence[Array] = (),
) -> Array:
    source = Value("x", TensorType(U8, ("N", *x.shape[1:])), scale=1.0, zero=x_zero)
    operands = [source, *more]
    node = Node(op, tuple(o.name for o in operands), (out,), tuple(attributes.items()))
    operator = OPERATORS[op]
    assert operator.infer(node, operands) == out.type
    return operator.run_integer(node, operands, [x.astype(np.int64), *arrays])


CONVOLUTIONS = [
    # channels, out, kernel, strides, padding, dilation, groups
    (5, 7, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    (4, 6, (3, 2), (2, 1), (0, 1, 2, 0), (1, 2), 2),
    (6, 6, (5, 3), (2, 2), (2, 1, 1, 0), (1, 1), 6),
    (3, 9, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 3),
]


@pytest.mark.parametrize(("channels", "out", "kernel", "strides", "padding", "dilation", "groups"), CONVOLUTIONS)
def test_conv2d(
    channels: int,
    out: int,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[int, ...],
    dilation: tuple[int, int],
    groups: int,
) -> None:
    weight = np.random.default_rng(1).integers(-127, 128, (out, channels // groups, *kernel))
    for extreme in (weight, np.full_like(weight, -127), np.full_like(weight, 127)):
        for x in _inputs((2, channels, 9, 8)):
            top, left, bottom, right = padding
            padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=3)
            expected = functional.conv2d(
                torch.from_numpy(padded).double(), torch.from_numpy(extreme).double(), None, strides, 0, dilation, groups
            )
            bias = np.arange(out) - 4
            value = Value("y", TensorType(I32, ("N", *expected.shape[1:])))
            constants = [
                Constant("w", TensorType(IntegerType(8, True), extreme.shape), extreme.astype(np.int8)),
                Constant("b", TensorType(I32, (out,)), bias.astype(np.int32)),
            ]
            attributes: dict[str, Attribute] = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
            found = _run("conv2d", attributes, x, value, 3, *constants, arrays=[extreme, bias])
            assert np.array_equal(found, expected.numpy().astype(np.int64) + bias[None, :, None, None])


def test_linear() -> None:
    weight = np.random.default_rng(1).integers(-127, 128, (4, 6))
    for x in _inputs((3, 6)):
        value = Value("y", TensorType(I32, ("N", 4)))
        constant = Constant("w", TensorType(IntegerType(8, True), (4, 6)), weight.astype(np.int8))
        assert np.array_equal(_run("linear", {}, x, value, 3, constant, arrays=[weight]), x @ weight.T)


@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize(
    ("kernel", "strides", "padding"),
    [((3, 3), (2, 2), (1, 1, 1, 1)), ((2, 3), (2, 3), (0, 1, 1, 0)), ((2, 2), (3, 2), (0, 0, 0, 0))],
)
def test_pooling(kernel: tuple[int, int], strides: tuple[int, int], padding: tuple[int, int, int, int], ceil_mode: int) -> None:
    top, left, bottom, right = padding
    for x in _inputs((2, 3, 8, 10)):
        for op in ("max_pool2d", "average_pool2d"):
            for include in (0, 1) if op == "average_pool2d" else (0,):
                attributes: dict[str, Attribute] = {
                    "kernel": kernel,
                    "strides": strides,
                    "padding": padding,
                    "ceil_mode": ceil_mode,
                }
                attributes |= {"dilation": (1, 1)} if op == "max_pool2d" else {"count_include_pad": include}
                node = Node(op, ("x",), (Value("y", TensorType(U8, ())),), tuple(attributes.items()))
                shape = OPERATORS[op].infer(node, [Value("x", TensorType(U8, ("N", 3, 8, 10)))]).shape
                counts = list(range(1, kernel[0] * kernel[1] + 1))
                if op == "average_pool2d":
                    attributes |= {
                        "counts": tuple(counts),
                        "multipliers": tuple(round(2**30 / c) for c in counts),
                        "shift": 30,
                        "limits": (0, 255),
                    }
                out = Value("y", TensorType(U8, shape), scale=1.0, zero=3)
                found = _run(op, attributes, x, out)
                for n, c, i, j in np.ndindex(*found.shape):
                    rows = range(i * strides[0] - top, i * strides[0] - top + kernel[0])
                    columns = range(j * strides[1] - left, j * strides[1] - left + kernel[1])
                    taps = [int(x[n, c, r, k]) for r in rows for k in columns if 0 <= r < 8 and 0 <= k < 10]
                    if op == "max_pool2d":
                        assert found[n, c, i, j] == max(taps)
                        continue
                    count = (
                        len(taps)
                        if not include
                        else sum(-top <= r < 8 + bottom and -left <= k < 10 + right for r in rows for k in columns)
                    )
                    expected = ((sum(t - 3 for t in taps) * round(2**30 / count) + (1 << 29)) >> 30) + 3
                    assert found[n, c, i, j] == min(max(expected, 0), 255)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("ceil_mode", [True, False])
def test_float_pooling_is_torchs(include: bool, ceil_mode: bool) -> None:
    x = torch.randn(2, 3, 9, 11)
    attributes: dict[str, Attribute] = {"kernel": (3, 2), "strides": (2, 2), "padding": (1, 1, 1, 1), "ceil_mode": int(ceil_mode)}
    expected = functional.avg_pool2d(x, (3, 2), (2, 2), (1, 1), ceil_mode, include)
    average = Node(
        "average_pool2d",
        ("x",),
        (Value("y", TensorType(F32, ("N", *expected.shape[1:]))),),
        (*attributes.items(), ("count_include_pad", int(include))),
    )
    assert torch.allclose(OPERATORS["average_pool2d"].run_float(average, [x]), expected, atol=1e-6)
    biggest = Node("max_pool2d", ("x",), average.outputs, (*attributes.items(), ("dilation", (1, 2))))
    expected = functional.max_pool2d(x, (3, 2), (2, 2), (1, 1), (1, 2), ceil_mode)
    assert torch.equal(OPERATORS["max_pool2d"].run_float(biggest, [x]), expected)


def test_moves() -> None:
    (x, *_) = _inputs((2, 3, 4, 4))
    out = Value("y", TensorType(U8, ("N", 5, 4, 7)), scale=1.0, zero=3)
    found = _run("pad", {"before": (0, 1, 0, 2), "after": (0, 1, 0, 1), "code": 9}, x, out)
    assert np.array_equal(found, np.pad(x, ((0, 0), (1, 1), (0, 0), (2, 1)), constant_values=9))
    out = Value("y", TensorType(U8, ("N", 2, 2, 4)), scale=1.0, zero=3)
    found = _run("slice", {"axes": (1, 2), "starts": (1, 0), "stops": (3, 4), "steps": (1, 2)}, x, out)
    assert np.array_equal(found, x[:, 1:3, ::2])
    out = Value("y", TensorType(U8, ("N", 48)), scale=1.0, zero=3)
    assert np.array_equal(_run("reshape", {"shape": ("N", 48)}, x, out), x.reshape(2, 48))


def test_add_and_rescale_round_half_up() -> None:
    (a, *_) = _inputs((2, 6))
    b = Value("b", TensorType(U8, ("N", 6)), scale=1.0, zero=200)
    out = Value("y", TensorType(U8, ("N", 6)), scale=1.0, zero=100)
    other = np.arange(12).reshape(2, 6) * 20
    found = _run("add", {"multipliers": (3, 5), "shift": 2, "limits": (10, 250)}, a, out, 3, b, arrays=[other])
    expected = (((a - 3) * 3 + (other - 200) * 5 + 2) >> 2) + 100
    assert np.array_equal(found, np.clip(expected, 10, 250))
    found = _run("rescale", {"multiplier": 3, "shift": 1, "limits": (0, 255)}, a, out)
    assert np.array_equal(found, np.clip((((a - 3) * 3 + 1) >> 1) + 100, 0, 255))


@pytest.mark.parametrize(
    ("op", "shapes", "attributes", "problem"),
    [
        ("conv2d", [(1, 4, 3, 3), (2, 3, 1, 1)], {"groups": 1}, "conv2d: u8[1,4,3,3] does not have 1 groups of 3 channels"),
        ("conv2d", [(1, 4, 3, 3), (3, 2, 1, 1)], {"groups": 2}, "conv2d: 3 output channels do not split into 2 groups"),
        ("conv2d", [(1, 4, 3, 3), (2, 4, 5, 5)], {"groups": 1}, "a window of 5 does not fit 3 elements padded by 0 and 0"),
        ("linear", [(1, 4), (2, 3)], {}, "linear: u8[1,4] does not end in 3 features"),
        ("add", [(1, 4), (1, 3)], {}, "add: u8[1,4] and u8[1,3] cannot be broadcast together"),
        ("reshape", [(1, 4)], {"shape": (1, 5)}, "reshape of u8[1,4] to u8[1,5]: 4 elements are not 5"),
        ("slice", [(1, 4)], {"axes": (1,), "starts": (3,), "stops": (3,), "steps": (1,)}, "slice: [3:3:1] of 4 elements"),
        ("pad", [(1, 4)], {"before": (0, -1), "after": (0, 0)}, "pad: counts must not be negative (a crop is a slice)"),
        ("mean", [(1, 4)], {"axes": (0,), "keepdims": 0}, "mean over axes (0,) of u8[1,4]: the batch cannot be reduced"),
    ],
)
def test_type_rules_say_what_does_not_fit(
    op: str, shapes: list[tuple[int, ...]], attributes: dict[str, Attribute], problem: str
) -> None:
    base: dict[str, Attribute] = {"strides": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)} if op == "conv2d" else {}
    operands = [Value(f"v{i}", TensorType(U8, shape)) for i, shape in enumerate(shapes)]
    node = Node(op, tuple(o.name for o in operands), (Value("y", TensorType(U8, ())),), tuple((base | attributes).items()))
    with pytest.raises(TypeRuleError) as caught:
        OPERATORS[op].infer(node, operands)
    assert str(caught.value) == problem


def test_quantized_input_rounds_half_up_and_saturates() -> None:
    value = Value("x", TensorType(U8, ("N", 1)), scale=0.5, zero=10)
    codes = quantize_input(value, np.array([[-100.0], [0.25], [0.24], [-0.25], [1000.0]]))
    assert codes.ravel().tolist() == [0, 11, 10, 10, 255]
    assert dequantize(value, codes).ravel().tolist() == [-5.0, 0.5, 0.0, 0.0, 122.5]


def test_interpreters_refuse_what_they_cannot_run() -> None:
    x = Value("x", TensorType(U8, ("N", 1)), scale=1.0, zero=0)
    y = Value("y", TensorType(IntegerType(4, False), ("N", 1)), scale=1.0, zero=0)
    node = Node("rescale", ("x",), (y,), (("limits", (0, 99)), ("multiplier", 1), ("shift", 1)))
    graph = Graph("g", Stage.INTEGER, (x,), (), (node,), ("y",))
    assert run_integer(graph, [np.array([[3]])])[0].tolist() == [[2]]
    with pytest.raises(InternalError, match="codes 50 to 50, outside of u4"):
        run_integer(graph, [np.array([[100]])])
    with pytest.raises(TypeRuleError, match="rescale has no meaning in float stages"):
        run_float(graph, [torch.zeros(1, 1)])
    with pytest.raises(InternalError, match="is in stage float, not integer"):
        run_integer(Graph("g", Stage.FLOAT, (x,), (), (node,), ("y",)), [])
