"""What once took minutes or all memory: functions of enormous numbers, windows as large as an image."""

from __future__ import annotations

import time

import mpmath
import pytest
import torch

from qcompiler.ir.dtypes import F32
from qcompiler.ir.graph import Node, TensorType, Value
from qcompiler.ops.functions import evaluate_exactly
from qcompiler.ops.table import OPERATORS


@pytest.mark.parametrize(
    ("expression", "x", "expected"),
    [
        ("exp(exp(x))", 1e6, mpmath.inf),
        ("exp(-exp(x))", 1e6, 0),
        ("sigmoid(exp(x))", 1e30, 1),
        ("softplus(x)", 1e6, 1e6),
        ("tanh(exp(exp(x)))", 1e9, 1),
        ("relu(sqrt(x))", -1.0, None),
        ("clip(log(x), 0, 6)", -1.0, None),
        ("abs(sqrt(x))", -1.0, None),
        ("pow(x, 0.5) + 1", -4.0, None),
    ],
)
def test_functions(expression: str, x: float, expected: object) -> None:
    begin = time.perf_counter()
    with mpmath.workprec(200):
        assert evaluate_exactly(expression, [mpmath.mpf(x)]) == [expected]
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize("op", ["max_pool2d", "average_pool2d"])
@pytest.mark.parametrize("depth", [(), (2,)])
def test_windows_as_large_as_the_image(op: str, depth: tuple[int, ...]) -> None:
    size = 1500
    more = {"dilation": (1, 1)} if op == "max_pool2d" else {"count_include_pad": 0}
    attributes = {"kernel": (size, size), "strides": (1, 1), "padding": (0, 0, 0, 1), "ceil_mode": 0, **more}
    x = torch.randn(1, 2, *depth, size, size)
    result = TensorType(F32, ("N", 2, *depth, 1, 2))
    begin = time.perf_counter()
    y = OPERATORS[op].run_float(Node(op, ("x",), (Value("y", result),), tuple(attributes.items())), [x])
    whole, cut = (x, x[..., 1:])
    expected = [part.amax((-1, -2)) if op == "max_pool2d" else part.mean((-1, -2)) for part in (whole, cut)]
    assert torch.allclose(y, torch.stack(expected, -1)[..., None, :], atol=1e-4)
    assert time.perf_counter() - begin < 20
