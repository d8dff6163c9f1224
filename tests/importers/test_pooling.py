"""Pooling in forms that are not one window over the input: adaptive to any size, behind padding that no maximum sees."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from qcompiler.importers.builder import GraphBuilder, Layer
from qcompiler.importers.emit_adaptive import adaptive_pool
from qcompiler.importers.load import import_model
from qcompiler.interpret import run_float
from qcompiler.ir.graph import Graph
from tests.importers.check import problem_of
from tests.importers.onnx_models import check, ints, model_of, node, ops
from tests.importers.test_rankings import Function

INFINITY = float("inf")


def imported(function: Callable[[torch.Tensor], torch.Tensor], *shape: int) -> Graph:
    """The graph of a function, which gives what the function gives."""
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    graph = import_model(Function(function), x)
    (y,) = run_float(graph, [x])
    torch.testing.assert_close(y, function(x))
    return graph


def test_adaptive_pooling_of_every_size() -> None:
    sizes = [1, 2, 3, 4, 6, 7, 10, 13]
    for wanted in (1, 2, 3, 5, 6, 7):
        for size, other in zip(sizes, sizes[::-1], strict=True):
            x = torch.randn(1, 2, size, other, generator=torch.Generator().manual_seed(size))
            for average in (True, False):
                graph = adapted(x, wanted, average)
                pool = F.adaptive_avg_pool2d if average else F.adaptive_max_pool2d
                torch.testing.assert_close(run_float(graph, [x])[0], pool(x, (wanted, wanted)))


def adapted(x: torch.Tensor, wanted: int, average: bool) -> Graph:
    builder = GraphBuilder("net")
    y = adaptive_pool(Layer(builder, "pool", "pool", "pool"), builder.input("x", x.shape[1:]), (wanted, wanted), average)
    return builder.finish([y]).graph


def test_adaptive_pooling_takes_few_operators() -> None:
    assert ops(imported(lambda x: F.adaptive_avg_pool2d(x, (7, None)), 3, 8, 5)) == ["average_pool2d"]
    assert ops(imported(lambda x: F.adaptive_avg_pool2d(x, 2), 3, 7, 7)) == ["average_pool2d"]
    assert ops(imported(lambda x: F.adaptive_max_pool2d(x, 6), 3, 14, 7)) == ["take", "max_pool2d"]
    assert ops(imported(lambda x: F.adaptive_avg_pool2d(x, (3, 2)), 3, 14, 6)) == [
        "average_pool2d",
        "slice",
        "average_pool2d",
        "concat",
        "take",
    ]
    assert ops(imported(lambda x: F.adaptive_avg_pool1d(x, 7), 3, 1)) == ["take"]
    assert ops(imported(lambda x: F.adaptive_avg_pool3d(x, (2, 5, 2)), 3, 3, 5, 4)).count("concat") == 0


@pytest.mark.parametrize("fill", [-INFINITY, float(np.finfo(np.float32).min)])
def test_padding_with_the_lowest_number_is_that_of_max_pooling(fill: float) -> None:
    def padded(*counts: int) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: F.pad(x, counts, value=fill)

    (pool,) = imported(lambda x: F.max_pool2d(padded(0, 1, 1, 1)(x), 3, 2, 1), 3, 8, 9).nodes
    assert pool["padding"] == (2, 1, 2, 2)
    assert "pad" not in ops(imported(lambda x: F.max_pool1d(padded(1, 1)(x), 3, 2, ceil_mode=True), 3, 8))
    assert "pad" not in ops(imported(lambda x: F.max_pool3d(padded(0, 1, 1, 0, 0, 1)(x), 3, 2), 3, 6, 6, 6))
    assert "pad" not in ops(imported(lambda x: F.adaptive_max_pool2d(padded(0, 1, 1, 0)(x), 1), 3, 6, 6))


def test_padding_with_infinity_anywhere_else() -> None:
    reason = "forward (aten.pad.default): it pads with -inf; only -inf right before max pooling is supported\n"
    for function in (
        lambda x: F.avg_pool2d(F.pad(x, (0, 1, 0, 1), value=-INFINITY), 3),
        lambda x: F.pad(x, (0, 1), value=-INFINITY),
        lambda x: F.max_pool2d(F.pad(x, (0, 5, 0, 5), value=-INFINITY), 2, 2, ceil_mode=True),
    ):
        assert reason in problem_of(Function(function), torch.randn(2, 3, 8, 8))


def test_padding_of_onnx() -> None:
    pads = {"p": ints(0, 0, 0, 0, 0, 0, 1, 1), "low": np.float32(-INFINITY)}
    pad = node("Pad", "x", "p", "low", output="wide")
    pooled = node("MaxPool", "wide", kernel_shape=[3, 3], strides=[2, 2])
    assert ops(check(model_of([pad, pooled], constants=pads))) == ["max_pool2d"]
    both = [
        pad,
        node("MaxPool", "wide", output="m", kernel_shape=[9, 11]),
        node("GlobalMaxPool", "wide", output="g"),
        node("Add", "m", "g"),
    ]
    assert "pad" not in ops(check(model_of(both, constants=pads)))
    text = problem_of(model_of([pad, node("Relu", "wide")], constants=pads))
    assert "wide (Pad): it pads with -inf; only -inf right before max pooling is supported\n" in text
