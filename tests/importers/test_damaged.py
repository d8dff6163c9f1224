"""Models that no runtime could run, or only with all memory there is: errors that say so, before anything is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from qcompiler.importers.load import load_model
from tests.importers.check import problem_of
from tests.importers.onnx_models import constant_node, ints, model_of, node, normal


def test_an_input_that_is_too_large() -> None:
    assert problem_of(model_of([node("Relu")], shape=("batch", 3, 1 << 20, 1 << 20))) == (
        "IMPORT009 at net, input x\n"
        "  problem: a sample of the input [3,1048576,1048576] has 3,298,534,883,328 elements, more than the 67,108,864 that are"
        " supported\n"
        "  remedy:  export the model for smaller inputs"
    )


def test_results_that_are_too_large() -> None:
    pads = helper.make_node("Pad", ["x", "pads"], ["y"], "grown")
    text = problem_of(model_of([pads], constants={"pads": ints(0, 0, 1 << 40, 0, 0, 0, 0, 0)}))
    assert "grown (Pad): a sample of its result [3,1099511627785,11] has 36,283,883,716,905 elements" in text
    expand = helper.make_node("Expand", ["x", "shape"], ["y"], "wide")
    text = problem_of(model_of([expand], shape=("batch", 1, 4), constants={"shape": ints(1, 1 << 40, 4)}))
    assert "wide (Expand): its result [1099511627776] has 1,099,511,627,776 elements" in text


def test_constants_that_are_not_computed() -> None:
    nodes = [
        constant_node("size", 1 << 40, 4),
        helper.make_node("ConstantOfShape", ["size"], ["ones"], "ones"),
        helper.make_node("Add", ["x", "ones"], ["y"], "sum"),
    ]
    text = problem_of(model_of(nodes))
    assert "ones (ConstantOfShape): its result [1099511627776,4] has 4,398,046,511,104 elements" in text

    class Large(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.ones(1, 1, 30_000, 30_000)

    text = problem_of(Large(), torch.ones(1, 1, 1, 1))
    assert "(aten.ones.default): a constant [1,1,30000,30000] has 900,000,000 elements" in text


def test_a_tensor_that_does_not_hold_its_shape() -> None:
    model = model_of([node("Add", "x", "bias")], constants={"bias": normal(3, 1, 1)})
    model.graph.initializer[0].raw_data = bytes(24)
    assert problem_of(model) == (
        "IMPORT002 at net\n"
        "  problem: the tensor 'bias' [3, 1, 1] cannot be read: cannot reshape array of size 6 into shape (3,1,1)\n"
        "  remedy:  export the model again: the file is damaged"
    )


def test_a_tensor_in_a_node_whose_data_lies_in_a_file() -> None:
    outside = TensorProto(data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "secret"), ("length", "4")):
        entry = outside.external_data.add()
        entry.key, entry.value = key, value
    model = model_of([node("Relu")])
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=outside))
    text = problem_of(model)
    assert text.startswith("IMPORT002 at net\n  problem: the weights of this ModelProto lie in files that it does not name fully")


@pytest.mark.parametrize(
    "entries",
    [{"location": "/etc/passwd"}, {"location": "../w"}, {"location": "w", "length": "-3"}, {"location": "w", "offset": "x"}],
)
def test_external_data_in_odd_places(tmp_path: Path, entries: dict[str, str]) -> None:
    model = model_of([node("Add", "x", "bias")], constants={"bias": normal(3, 1, 1)})
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    (tmp_path / "w").write_bytes(b"0" * 12)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    text = problem_of(tmp_path / "net.onnx")
    assert text.startswith(f"IMPORT002 at {tmp_path / 'net.onnx'}\n  problem: its external data cannot be read: ")


def test_a_model_without_outputs() -> None:
    model = model_of([node("Relu")])
    del model.graph.output[:]
    assert problem_of(model) == (
        "IMPORT007 at net\n  problem: the model has no outputs\n  remedy:  let it return at least one tensor"
    )


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (node("ReduceMean", axes=[2], keepdims=7), "keepdims=7 is neither 0 nor 1"),
        (node("MaxPool", kernel_shape=[2, 2], strides=[0, 1]), "strides [0, 1] are not 2 numbers from 1 on"),
        (node("MaxPool", kernel_shape=[2, 2], pads=[0, 0, 1]), "pads [0, 0, 1] are not 4 numbers"),
        (node("MaxPool", kernel_shape=[2, 2], dilations=[1]), "dilations [1] are not 2 numbers from 1 on"),
    ],
)
def test_attributes_that_mean_nothing(broken: onnx.NodeProto, why: str) -> None:
    model = model_of([node("Relu")])
    model.graph.node[0].CopyFrom(broken)
    assert f"y ({broken.op_type}): {why}" in problem_of(model)


def test_what_onnx_itself_refuses() -> None:
    model = model_of([node("Relu")])
    resize = helper.make_node("Resize", ["x", "", "scales"], ["y"], "resize", mode="nearest")
    model.graph.node[0].CopyFrom(resize)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "scales"))
    text = problem_of(model)
    assert text.startswith("IMPORT002 at net, resize (Resize)\n  problem: the model does not follow ONNX's rules: ")


def test_undefined_bytes_are_no_model(tmp_path: Path) -> None:
    data = bytearray(model_of([node("Relu")]).SerializeToString())
    data[data.index(b"Relu")] = 0xF5
    (tmp_path / "net.onnx").write_bytes(bytes(data))
    text = problem_of(tmp_path / "net.onnx")
    assert text.startswith("IMPORT002 at ")
    assert load_model(model_of([node("Relu")])).graph.nodes
