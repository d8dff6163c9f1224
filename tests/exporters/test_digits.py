"""The quantized digits network in ONNX Runtime, for all bits: the classes are the library's, the codes nearly so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from qcompiler.exporters.onnx_model import to_onnx
from qcompiler.importers.load import load_model
from qcompiler.interpret import run_float
from qcompiler.ir.graph import Graph

from .conftest import Digits, compare, run_onnx

GraphOf = Callable[..., Graph]
ELEMENTS = {"w8": "INT8", "w4": "INT4", "w2": "INT4", "a8": "UINT8", "a4": "UINT4"}


@pytest.mark.parametrize("optimized", [True, False], ids=["optimized", "plain"])
@pytest.mark.parametrize("bits", ["w8a8", "w4a8", "w2a8", "w8a4", "w4a4", "w2a4"])
def test_classes_are_the_references(digits: Digits, digits_graph: GraphOf, bits: str, optimized: bool) -> None:
    graph = digits_graph(bits)
    found = compare(graph, to_onnx(graph), digits.x_test, optimized=optimized)
    coarse = bits.endswith("a4")  # where a code that differs by one is far off
    assert found.agreement() >= (0.95 if coarse else 0.98)
    assert np.abs(found.expected - found.found).mean() < (0.12 if coarse else 0.03) * np.abs(found.expected).mean()


def test_codes_of_eight_bit_outputs_are_within_one(digits: Digits, digits_graph: GraphOf) -> None:
    graph = digits_graph("w8a8", 8)
    found = compare(graph, to_onnx(graph), digits.x_test)
    assert found.within(1.01) > 0.99
    assert found.agreement() >= 0.99


@pytest.mark.parametrize(("bits", "output_bits", "opset"), [("w8a8", 8, 13), ("w8a8", 32, 13), ("w8a8", 16, 21), ("w4a8", 8, 21), ("w2a8", 8, 21)])  # fmt: skip
def test_the_operator_set_is_the_lowest_with_all_types(digits_graph: GraphOf, bits: str, output_bits: int, opset: int) -> None:
    assert to_onnx(digits_graph(bits, output_bits)).opset_import[0].version == opset


@pytest.mark.parametrize("bits", ["w8a8", "w4a4", "w2a4"])
def test_codes_are_stored_in_their_own_type(digits: Digits, digits_graph: GraphOf, bits: str) -> None:
    graph = digits_graph(bits)
    stored = {i.name: i for i in to_onnx(graph).graph.initializer}
    weight = next(c for c in graph.constants if c.name.endswith(".weight"))
    tensor = stored[weight.name]
    assert TensorProto.DataType.Name(tensor.data_type) == ELEMENTS[bits[:2]]
    assert np.array_equal(onnx.numpy_helper.to_array(tensor).astype(np.int8), weight.data)
    zeros = {TensorProto.DataType.Name(t.data_type) for name, t in stored.items() if name.endswith(".zero") and not t.dims}
    assert ELEMENTS[bits[2:]] in zeros


def test_names_are_the_users(digits_graph: GraphOf) -> None:
    graph = digits_graph("w8a8")
    model = to_onnx(graph)
    assert [i.name for i in model.graph.input] == [v.name for v in graph.inputs]
    assert [o.name for o in model.graph.output] == list(graph.outputs)
    layers = {node.origin for node in graph.nodes if node.op in ("conv2d", "linear", "max_pool2d", "average_pool2d")}
    names = [node.name for node in model.graph.node]
    assert layers <= set(names)
    assert len(set(names)) == len(names)
    for port in (*model.graph.input, *model.graph.output):
        assert port.type.tensor_type.shape.dim[0].dim_param == "N"
        assert port.type.tensor_type.elem_type == TensorProto.FLOAT


def test_float_stages_are_what_they_were(digits: Digits) -> None:
    import torch

    graph = load_model(digits.model, torch.from_numpy(digits.x_test[:1])).graph
    found = run_onnx(to_onnx(graph), digits.x_test)[0]
    np.testing.assert_allclose(found, digits.logits(digits.x_test), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found, run_float(graph, [torch.from_numpy(digits.x_test)])[0].numpy(), rtol=1e-3, atol=1e-3)
