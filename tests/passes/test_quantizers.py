"""Quantized models through all passes, in the integer reference, beside ONNX Runtime: each quantizer is a value of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from qcompiler.codes import dequantize
from qcompiler.errors import CompileError
from qcompiler.importers.load import load_model
from qcompiler.interpret import quantize_input, run_integer
from qcompiler.ir.graph import Array, Graph
from qcompiler.pipeline import Settings, to_integer
from qcompiler.report import sqnr_db
from tests.importers.onnx_models import model_of, node, normal, ops

IMAGES = np.random.default_rng(5).normal(size=(6, 4, 6, 6)).astype(np.float32)


class Network:
    """Nodes and constants of a quantized model that is being written."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}

    def op(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(node(operator, *inputs, output=output, **attributes))
        return output

    def quantized(self, x: str, scale: float, dtype: str = "int8", zero: int = 0, output: str | None = None, **more: Any) -> str:
        name = f"q{len(self.nodes)}"
        kind = getattr(onnx.TensorProto, dtype.upper())
        self.constants[f"{name}.s"] = np.float32(scale)  # type: ignore[assignment]
        self.constants[f"{name}.z"] = np.array(zero, onnx.helper.tensor_dtype_to_np_dtype(kind))
        codes = self.op("QuantizeLinear", x, f"{name}.s", f"{name}.z", **more)
        return self.op("DequantizeLinear", codes, f"{name}.s", f"{name}.z", output=output)

    def conv(self, x: str, channels: int = 4, size: int = 3, output: str | None = None) -> str:
        """A convolution with weights on a grid of 8 bits."""
        name = f"w{len(self.nodes)}"
        weight = normal(channels, 4, size, size) * 0.3
        scale = np.abs(weight).max((1, 2, 3), keepdims=True) / 127
        self.constants[name] = (np.round(weight / scale) * scale).astype(np.float32)
        return self.op("Conv", x, name, output=output, pads=[size // 2] * 4)

    def model(self, *outputs: str) -> onnx.ModelProto:
        model = model_of(self.nodes, ("batch", 4, 6, 6), self.constants, opset=21)
        del model.graph.output[:]
        float32, rank = onnx.TensorProto.FLOAT, 4
        model.graph.output.extend(onnx.helper.make_tensor_value_info(name, float32, [None] * rank) for name in outputs)
        return model


def expected(model: onnx.ModelProto, images: Array = IMAGES) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[Array] = session.run(None, {session.get_inputs()[0].name: images})
    return results


def outputs_of(graph: Graph, images: Array = IMAGES) -> list[Array]:
    results = run_integer(graph, [quantize_input(graph.inputs[0], images)])
    values = (graph.values[name] for name in graph.outputs)
    return [dequantize(y, v.scale or 1.0, v.zero or 0) for v, y in zip(values, results, strict=True)]


def check(model: onnx.ModelProto, data: Array | None, floor: float = 30.0, bits: int = 16) -> Graph:
    """The integer graph, whose every output agrees with ONNX Runtime's."""
    graph = to_integer(load_model(model).graph, Settings(calibration=data, output_bits=bits))
    found = [sqnr_db(theirs, ours) for theirs, ours in zip(expected(model), outputs_of(graph), strict=True)]
    assert min(found) > floor, found
    return graph


@pytest.mark.parametrize(("scale", "skip"), [(0.05, 0.05), (0.002, 0.05), (0.05, 0.002), (0.05, None), (None, 0.01)])
def test_readers_with_quantizers_of_their_own(scale: float | None, skip: float | None) -> None:
    net = Network()
    stem = net.op("Relu", net.conv(net.quantized("x", 0.03)))
    a = stem if scale is None else net.quantized(stem, scale)
    b = stem if skip is None else net.quantized(stem, skip)
    total = net.op("Add", net.quantized(net.conv(a), 0.08), b)
    model = net.model(net.quantized(total, 0.12))
    if None in (scale, skip):
        with pytest.raises(CompileError, match=r"its quantizers do not say the ranges of\n *t3"):
            check(model, None)
    check(model, IMAGES if None in (scale, skip) else None)


@pytest.mark.parametrize(("first", "second"), [(0.05, 0.005), (0.005, 0.05)])
def test_two_in_a_row(first: float, second: float) -> None:
    net = Network()
    check(net.model(net.quantized(net.quantized(net.conv(net.quantized("x", 0.03)), first), second)), None)


@pytest.mark.parametrize("bits", [8, 32])
def test_limits_of_outputs(bits: int) -> None:
    net = Network()
    c = net.conv(net.quantized("x", 0.03))
    image = net.quantized(c, 1 / 255, "uint8")
    gate = net.quantized(net.op("Sigmoid", net.quantized(net.conv("x"), 0.03)), 1 / 400, "uint8")
    wide = net.quantized(net.op("Transpose", net.conv(net.quantized("x", 0.03)), perm=[0, 2, 3, 1]), 0.004)
    graph = check(net.model(image, gate, wide), IMAGES, bits=bits)
    highest = [float(y.max()) for y in outputs_of(graph, 4 * IMAGES)]
    assert np.allclose(highest, [1.0, 255 / 400, 0.508], atol=1e-3)


def test_tensors_that_leave_beside_their_quantizer() -> None:
    net = Network()
    c = net.conv(net.quantized("x", 0.03))
    check(net.model(c, net.op("Relu", net.quantized(c, 0.004))), IMAGES, floor=50)


def test_an_input_with_two_quantizers() -> None:
    net = Network()
    a, b = net.quantized("x", 0.002), net.quantized("x", 0.03)
    graph = check(net.model(net.quantized(net.conv(a), 0.02), net.quantized(net.conv(b), 0.05)), None)
    assert str(graph.inputs[0].type.dtype) == "i16"


@pytest.mark.parametrize(("clip", "source"), [(0.002, 0.03), (0.03, 0.004)])
def test_calibration_data_changes_nothing(clip: float, source: float) -> None:
    net = Network()
    a = net.quantized(net.conv(net.quantized("x", source)), clip, "uint8")
    model = net.model(net.quantized(net.op("Add", net.quantized(net.conv(a), 0.05), a), 0.06))
    without, given = (check(model, data) for data in (None, IMAGES))
    difference = [np.abs(a - b).max() for a, b in zip(outputs_of(without), outputs_of(given), strict=True)]
    assert max(difference) < 0.06


@pytest.mark.parametrize("dtype", ["uint4", "int16"])
def test_other_widths(dtype: str) -> None:
    net = Network()
    steps = 16 if dtype.endswith("4") else 65536
    zero = 0 if dtype[0] == "i" else steps // 2
    a = net.quantized(net.conv(net.quantized("x", 8 / steps, dtype, zero)), 12 / steps, dtype, zero)
    check(net.model(net.quantized(net.conv(a), 0.05)), None)


def test_moves_and_concatenations() -> None:
    net = Network()
    a = net.quantized(net.conv(net.quantized("x", 0.03)), 0.05)
    b = net.quantized(net.op("Sigmoid", net.conv(net.quantized("x", 0.03))), 1 / 255, "uint8")
    pooled = net.quantized(net.op("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2]), 0.05)
    moved = net.quantized(net.op("Transpose", pooled, perm=[0, 1, 3, 2]), 0.01)
    joined = net.quantized(net.op("Concat", a, b, axis=1), 0.05)
    loose = net.op("Concat", net.quantized(net.conv(a), 0.05), b, axis=1)
    check(net.model(moved, joined, loose), IMAGES)


def test_a_quantizer_alone_is_free() -> None:
    net = Network()
    a = net.quantized(net.op("Relu", net.conv(net.quantized("x", 0.03))), 0.02, "uint8")
    b = net.quantized(net.op("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2]), 0.02, "uint8")
    c = net.quantized(net.op("Concat", b, net.quantized(net.op("Sigmoid", b), 0.004, "uint8"), axis=1), 0.02, "uint8")
    graph = check(net.model(net.quantized(c, 0.02, "uint8", output="y")), None)
    assert ops(graph) == ["conv2d", "requantize_narrow", "max_pool2d", "lookup", "concat", "rescale"]
