"""Weights and biases that no code stands for are an error, even where a clamp behind them hides the infinity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qcompiler.errors import CompileError
from qcompiler.ir.dtypes import F32
from qcompiler.ir.graph import Graph, Node, Stage, TensorType, Value, float_constant
from qcompiler.pipeline import Settings, to_integer


def test_an_infinite_bias_in_front_of_a_clamp() -> None:
    x, s, y = (Value(name, TensorType(F32, ("N", size))) for name, size in (("x", 4), ("s", 2), ("y", 2)))
    weight = float_constant("w", np.array([[0.5, 0.25, -0.5, 1.0], [1.0, -1.0, 0.5, 0.5]]))
    nodes = (Node("linear", ("x", "w", "b"), (s,), (), "head"), Node("clip", ("s",), (y,), (("clamp", (0.0, 6.0)),), "relu6"))
    graph = Graph("net", Stage.FLOAT, (x,), (weight, float_constant("b", np.array([0.5, np.inf]))), nodes, ("y",))
    samples = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    with pytest.raises(CompileError) as caught:
        to_integer(graph, Settings(samples))
    assert str(caught.value) == (
        "QUANT004 at head\n  problem: 1 of its 2 biases are NaN or infinite\n  remedy:  repair the model's parameters"
    )
    assert to_integer(replace(graph, constants=(weight, float_constant("b", np.array([0.5, 1e30])))), Settings(samples))
