"""Quantized ONNX models: QDQ and QLinear nodes as ONNX Runtime's own tools write them, and by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from qcompiler.importers.builder import ImportedModel
from qcompiler.importers.load import load_model
from qcompiler.interpret import run_float
from qcompiler.ir.graph import Graph
from qcompiler.ir.verify import verify
from qcompiler.ops.table import OPERATORS
from qcompiler.pipeline import Settings, to_integer
from tests.importers.check import problem_of
from tests.importers.onnx_models import ints, model_of, node, normal, ops

IMAGES = np.random.default_rng(5).normal(size=(16, 3, 8, 8)).astype(np.float32)


class Images(CalibrationDataReader):
    def __init__(self) -> None:
        self.images: Iterator[np.ndarray] = iter(IMAGES)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.images, None)
        return None if image is None else {"x": image[None]}


def network() -> onnx.ModelProto:
    """Convolutions, a shortcut, concat, pooling and a classifier."""
    nodes = [
        node("Conv", "x", "w1", "b1", output="c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", output="r1"),
        node("Conv", "r1", "w2", "b2", output="c2", pads=[1, 1, 1, 1]),
        node("Add", "c2", "r1", output="a"),
        node("Relu", "a", output="r2"),
        node("MaxPool", "r2", output="p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Sigmoid", "p", output="g"),
        node("Mul", "p", "g", output="m"),
        node("Concat", "m", "p", output="k", axis=1),
        node("GlobalAveragePool", "k", output="v"),
        node("Flatten", "v", output="f"),
        node("Gemm", "f", "w3", "b3"),
    ]
    shapes = {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (6, 6, 3, 3), "b2": (6,), "w3": (12, 5), "b3": (5,)}
    generator = np.random.default_rng(7)
    constants = {name: (generator.normal(size=shape) / 4).astype(np.float32) for name, shape in shapes.items()}
    return model_of(nodes, ("batch", 3, 8, 8), constants)


def agreement(imported: ImportedModel, model: onnx.ModelProto | Path) -> float:
    """The signal to noise ratio in dB between the imported float graph and the quantized model in ONNX Runtime."""
    verify(imported.graph, OPERATORS)
    source = model if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {session.get_inputs()[0].name: IMAGES})
    (ours,) = run_float(imported.graph, [torch.from_numpy(IMAGES)])
    return float(10 * np.log10((theirs**2).sum() / ((ours.numpy() - theirs) ** 2).sum()))


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_what_onnxruntime_writes(form: QuantFormat, activations: QuantType, per_channel: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    quantize_static(
        network(),
        path,
        Images(),
        quant_format=form,
        activation_type=activations,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
    )
    imported = load_model(path)
    assert agreement(imported, path) > 22
    counts = {op: ops(imported.graph).count(op) for op in ("conv2d", "clip", "add", "linear", "concat")}
    assert counts == {"conv2d": 2, "clip": 0, "add": 1, "linear": 1, "concat": 1}
    graph = imported.graph
    assert [n.op for n in graph.consumers[graph.inputs[0].name]] == ["quantizer"]
    lowest = [q["clamp"][0] for n in graph.nodes if n.op in ("add", "conv2d") for q in graph.consumers[n.output.name]]
    assert [low == 0 for low in lowest] == [True, False, True]  # the first and the last one imply a ReLU


def quantizers(graph: Graph) -> dict[str, tuple[float, float]]:
    """The limits of each quantizer by the tensor that it reads."""
    return {node.inputs[0]: node["clamp"] for node in graph.nodes if node.op == "quantizer"}


def pair(x: str, output: str, scale: str = "s", zero: str = "z", **more: Any) -> list[onnx.NodeProto]:
    return [
        node("QuantizeLinear", x, scale, zero, output=f"{output}.codes", **more),
        node("DequantizeLinear", f"{output}.codes", scale, zero, output=output, **more),
    ]


def test_ranges() -> None:
    constants = {"s": np.float32(0.5), "z": np.uint8(3), "s8": np.float32(0.25), "z8": np.int8(-128)}
    nodes = [*pair("x", "a"), node("Sub", "a", "s", output="b"), *pair("b", "c", "s8", "z8"), node("Neg", "c")]
    imported = load_model(model_of(nodes, constants=constants))  # type: ignore[arg-type]
    assert ops(imported.graph) == ["quantizer", "sub", "quantizer", "function"]
    assert quantizers(imported.graph) == {"x": (-1.5, 126.0), "b": (0.0, 63.75)}
    assert imported.notes == ()


def test_16_bits_and_moves_between_the_two() -> None:
    constants = {"s": np.float32(0.5), "z": np.uint16(3), "shape": ints(0, -1)}
    nodes = [
        node("QuantizeLinear", "x", "s", "z", output="q"),
        node("Reshape", "q", "shape", output="r"),
        node("DequantizeLinear", "r", "s", "z"),
    ]
    imported = load_model(model_of(nodes, constants=constants, opset=21))  # type: ignore[arg-type]
    assert ops(imported.graph) == ["quantizer", "reshape"]
    assert quantizers(imported.graph) == {"x": (-1.5, 32766.0)}


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4])
@pytest.mark.parametrize("form", ["tensor", "channel", "block"])
def test_constant_weights(kind: int, form: str) -> None:
    codes = np.random.default_rng(3).integers(0, 8, size=(8, 4))
    scale = {"tensor": np.float32(0.5), "channel": np.abs(normal(4)), "block": np.abs(normal(2, 4))}[form]
    weight = helper.make_tensor("w", kind, codes.shape, codes.reshape(-1).tolist())
    more = {"tensor": {}, "channel": {"axis": 1}, "block": {"axis": 0, "block_size": 4}}[form]
    nodes = [node("DequantizeLinear", "w", "s", output="f", **more), node("MatMul", "x", "f")]
    model = model_of(nodes, ("batch", 8), {"s": np.asarray(scale)}, opset=21)
    model.graph.initializer.append(weight)
    onnx.checker.check_model(model)
    graph = load_model(model).graph
    spread = np.repeat(scale, 4, 0) if form == "block" else scale
    assert np.allclose(graph.constants[0].data, (codes * spread).T)


def test_codes_of_the_microsoft_domain() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "q", domain="com.microsoft"),
        helper.make_node("QLinearLeakyRelu", ["q", "s", "z", "s2", "z"], ["l"], "l", domain="com.microsoft", alpha=0.25),
        helper.make_node("QLinearConcat", ["s", "z", "q", "s", "z", "l", "s2", "z"], ["k"], "k", domain="com.microsoft", axis=1),
        helper.make_node("DequantizeLinear", ["k", "s", "z"], ["y"], "y", domain="com.microsoft"),
    ]
    constants = {"s": np.float32(0.5), "s2": np.float32(0.25), "z": np.uint8(128)}
    model = model_of([], constants=constants)  # type: ignore[arg-type]
    model.graph.node.extend(nodes)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    imported = load_model(model)
    assert ops(imported.graph) == ["quantizer", "prelu", "quantizer", "concat", "quantizer"]
    assert quantizers(imported.graph) == {"x": (-64.0, 63.5), "l": (-32.0, 31.75), "k": (-64.0, 63.5)}


def test_output_of_codes() -> None:
    nodes = [node("Relu", output="r"), node("QuantizeLinear", "r", "s", "z")]
    model = model_of(nodes, constants={"s": np.float32(0.5), "z": np.uint8(0)})  # type: ignore[dict-item]
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    assert load_model(model).notes == ("the output y is a tensor of codes in the model; here it is float",)


WHY: dict[str, tuple[list[onnx.NodeProto], str]] = {
    "channels": (
        pair("x", "y", "sc", "zc", axis=1),
        "y.codes (QuantizeLinear): activations need one scale for the whole tensor",
    ),
    "float": (
        [node("QuantizeLinear", "x", "s", "f8", output="q"), node("DequantizeLinear", "q", "s", "f8")],
        "q (QuantizeLinear): codes of type float8_e4m3fn are not supported",
    ),
    "computed": (
        [node("QuantizeLinear", "x", "s", "z", output="q"), node("QLinearMatMul", "q", "s", "z", "q", "s", "z", "s", "z", output="r"), node("Clip", "q", "z", output="t"), node("DequantizeLinear", "t", "s", "z")],
        "t (Clip): it reads codes of a quantized tensor; only QLinear operators and moves of elements do that",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHY)
def test_why_unsupported(name: str) -> None:
    nodes, why = WHY[name]
    constants = {"s": np.float32(0.5), "z": np.uint8(3), "sc": np.abs(normal(3)), "zc": np.zeros(3, np.uint8)}
    model = model_of(nodes, constants=constants, opset=21)  # type: ignore[arg-type]
    model.graph.initializer.append(helper.make_tensor("f8", TensorProto.FLOAT8E4M3FN, [], [0.0]))
    assert f"{why}\n" in problem_of(model)


def test_weights_that_are_quantized_in_the_model() -> None:
    constants = {"w": normal(11, 4), "s": np.float32(0.125), "z": np.int8(0)}
    nodes = [*pair("w", "v"), node("MatMul", "x", "v")]
    graph = load_model(model_of(nodes, constants=constants)).graph  # type: ignore[arg-type]
    expected = np.clip(np.round(constants["w"] / 0.125), -128, 127) * 0.125
    assert np.allclose(graph.constants[0].data, expected.T)
    assert numpy_helper.from_array(graph.constants[0].data).dims == [4, 11]


def test_pairs_of_each_reader_are_one_quantizer(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    quantize_static(network(), path, Images(), quant_format=QuantFormat.QDQ, extra_options={"DedicatedQDQPair": True})
    graph = load_model(path).graph
    assert [ops(graph).count(op) for op in ("conv2d", "quantizer")] == [2, 9]
    to_integer(graph, Settings())  # needs no calibration data


@pytest.mark.parametrize(("kind", "lowest"), [(TensorProto.UINT8, 0), (TensorProto.INT8, -128)])
@pytest.mark.parametrize("reader", ["DequantizeLinear", "QLinearConv", "Cast", "Reshape"])
def test_inputs_of_codes(kind: int, lowest: int, reader: str) -> None:
    zero = np.array(lowest + 100, helper.tensor_dtype_to_np_dtype(kind))
    weight = np.arange(24, dtype=np.int8).reshape(2, 3, 2, 2)
    constants = {"s": np.float32(0.5), "z": zero, "w": weight, "wz": np.int8(0), "shape": ints(0, -1)}
    nodes = {
        "DequantizeLinear": [node("DequantizeLinear", "x", "s", "z")],
        "QLinearConv": [node("QLinearConv", "x", "s", "z", "w", "s", "wz", "s", "z", output="q"), node("DequantizeLinear", "q", "s", "z")],
        "Cast": [node("Cast", output="f", to=TensorProto.FLOAT), node("Mul", "f", "s")],
        "Reshape": [node("Reshape", "x", "shape", output="r"), node("DequantizeLinear", "r", "s", "z")],
    }[reader]  # fmt: skip
    imported = load_model(model_of(nodes, ("batch", 3, 8, 8), constants, type=kind))  # type: ignore[arg-type]
    assert quantizers(imported.graph)["x"] == (lowest, lowest + 255)
    assert imported.notes[0].endswith("in the model; here it takes the same numbers as float32")
    codes = lowest + np.random.default_rng(2).integers(0, 256, (2, 3, 8, 8))
    session = onnxruntime.InferenceSession(model_of(nodes, ("batch", 3, 8, 8), constants, type=kind).SerializeToString())
    (theirs,) = session.run(None, {"x": codes.astype(zero.dtype)})
    (ours,) = run_float(imported.graph, [torch.from_numpy(codes.astype(np.float32))])
    assert np.allclose(ours.numpy(), theirs, atol=0.26)  # QLinearConv rounds
    integer = to_integer(imported.graph, Settings(calibration=codes.astype(np.float32)))
    assert (integer.inputs[0].scale, integer.inputs[0].zero) == (1.0, -lowest)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_other_floats(kind: int) -> None:
    weight = helper.make_tensor("w", kind, [11, 2], [0.5, -1.5] * 11)
    model = model_of([node("MatMul", "x", "w", output="m"), node("Cast", "m", to=TensorProto.FLOAT)], type=kind)
    model.graph.initializer.append(weight)
    imported = load_model(model)
    assert imported.graph.constants[0].data.tolist() == [[0.5] * 11, [-1.5] * 11]
    assert len(imported.notes) == 1
