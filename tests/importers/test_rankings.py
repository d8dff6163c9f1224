"""A softmax, sigmoid or another growing function before a ranking is left out: it does not change the order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from qcompiler.importers.load import load_model
from tests.importers.check import check_graph, problem_of
from tests.importers.onnx_models import check, ints, model_of, node, normal, ops

SOFTMAX_REASON = "supported only as the model's last step, or before argmax or topk over the same axis, not the batch"


class Function(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


TORCH: dict[str, tuple[Callable[[torch.Tensor], Any], list[str]]] = {
    "argmax": (lambda x: x.softmax(1).argmax(1), ["argmax"]),
    "negative axis": (lambda x: F.log_softmax(x, 2).argmin(-1, keepdim=True), ["argmax"]),
    "max": (lambda x: x.softmax(1).max(1)[1], ["argmax"]),
    "topk": (lambda x: x.softmax(2).topk(2, 2)[1], ["topk_indices"]),
    "chain": (lambda x: F.dropout(x.sigmoid(), 0.5, False).exp().argmax(1), ["argmax"]),
    "values": (lambda x: x.sigmoid().topk(2, 1), ["function", "topk_values", "topk_indices"]),
    "not growing": (lambda x: x.sin().argmax(1), ["function", "argmax"]),
}


@pytest.mark.parametrize("name", TORCH)
def test_torch(name: str) -> None:
    function, expected = TORCH[name]
    graph = load_model(Function(function), torch.randn(2, 5, 4)).graph

    def results(arrays: list[Any]) -> list[Any]:
        given = function(torch.from_numpy(arrays[0]))
        return [y.numpy() for y in (given if isinstance(given, tuple) else (given,))]

    check_graph(graph, results)
    assert ops(graph) == expected


def test_a_softmax_that_is_returned_and_ranked() -> None:
    imported = load_model(Function(lambda x: (x.softmax(1), x.softmax(1).argmax(1))), torch.randn(2, 5))
    assert [activation.output for activation in imported.final_activations] == [0]
    assert sorted(ops(imported.graph)) == ["argmax", "identity"]


@pytest.mark.parametrize(
    "function", [lambda x: x.softmax(2).argmax(1), lambda x: x.softmax(1).max(1)[0], lambda x: x.softmax(1).topk(2, 1)[0]]
)
def test_other_uses_of_a_softmax(function: Callable[[torch.Tensor], Any]) -> None:
    lines = problem_of(Function(function), torch.randn(2, 5, 4)).splitlines()
    assert f"           forward (aten.softmax.int): {SOFTMAX_REASON}" in lines


def integers(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """A model whose output holds indices."""
    model = model_of(nodes, ("batch", 11), constants)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    return model


def test_onnx() -> None:
    weight = {"w": normal(11, 5)}
    nodes = [node("MatMul", "x", "w", output="m"), node("Softmax", "m", output="s", axis=-1), node("Identity", "s", output="i")]
    best = node("ArgMax", "i", axis=1, keepdims=0)
    assert ops(check(integers([*nodes, best], weight))) == ["linear", "argmax"]
    top = node("TopK", "s", "k", output="values", axis=1)
    top.output.append("y")
    assert ops(check(integers([*nodes[:2], top], {**weight, "k": ints(2)}))) == ["linear", "topk_indices"]
    assert ops(check(integers([node("Sigmoid", output="s"), node("ArgMax", "s", axis=1)]))) == ["argmax"]
    whole = model_of([*nodes[:2], node("Cast", "s", to=7)], ("batch", 11), weight)
    assert f"s (Softmax): {SOFTMAX_REASON}\n" in problem_of(whole)
