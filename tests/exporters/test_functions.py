"""Every name of the expression language in ONNX Runtime, and what happens to one that ONNX does not have."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcompiler.errors import CompileError
from qcompiler.exporters import functions
from qcompiler.exporters.onnx_model import to_onnx
from qcompiler.interpret import run_float
from qcompiler.ir.dtypes import F32
from qcompiler.ir.graph import Constant, Graph, Node, Stage, TensorType, Value
from qcompiler.ops.functions import FUNCTIONS

from .conftest import compare, run_onnx
from .test_operators import codes, value

FURTHER = {"clip": ", -0.5, 0.25", "gt": ", 0.5", "max": ", 0.5", "min": ", 0.5", "pow": ", 3"}
"""The operands after the first."""


def called(name: str) -> str:
    """An expression that is a call of ``name``, of a number that is not negative where it must not be."""
    x = "abs(x) + 1" if name in ("log", "sqrt") else "x"
    return f"{name}({x}{FURTHER.get(name, '')})"


def test_every_name_has_an_operator_with_the_same_results() -> None:
    assert set(functions.CALLS) == set(FUNCTIONS)
    of_x = Value("x", TensorType(F32, ("N", 101)))
    nodes = [
        Node("function", ("x",), (Value(name, of_x.type),), (("expression", called(name)),), f"layer {name}")
        for name in FUNCTIONS
    ]
    graph = Graph("g", Stage.FLOAT, (of_x,), (), tuple(nodes), tuple(FUNCTIONS))
    x = np.linspace(-3.0, 3.0, 101, dtype=np.float32)[None]
    expected = run_float(graph, [torch.from_numpy(x)])
    for name, real, found in zip(FUNCTIONS, expected, run_onnx(to_onnx(graph), x), strict=True):
        np.testing.assert_allclose(found, real.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_name_that_onnx_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """A float function is refused by the layer's name; a table is written as a table."""
    monkeypatch.delitem(functions.CALLS, "tan")
    of_x = Value("x", TensorType(F32, ("N", 4)))
    node = Node("function", ("x",), (Value("y", of_x.type),), (("expression", "1 + tan(x) * sin(x)"),), "act")
    with pytest.raises(CompileError) as caught:
        to_onnx(Graph("g", Stage.FLOAT, (of_x,), (), (node,), ("y",)))
    assert str(caught.value).startswith(
        "EXPORT001 at g\n  problem: 1 operators cannot be written as ONNX:\n           act (tan)\n"
    )

    table = np.arange(256)[::-1]
    constant: Constant = codes("t", table)
    lookup = Node("lookup", ("x", "t"), (value("y", (4,), zero=100),), (("expression", "tan(x)"),), "act")
    coded = Graph("g", Stage.INTEGER, (value("x", (4,)),), (constant,), (lookup,), ("y",))
    model = to_onnx(coded)
    assert "Gather" in {node.op_type for node in model.graph.node}
    assert compare(coded, model, np.linspace(-2, 2, 4, dtype=np.float32)[None]).within(0.01) == 1.0
