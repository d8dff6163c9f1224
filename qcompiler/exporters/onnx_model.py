"""A graph of any stage as an ONNX model, so that Netron shows it and ONNX Runtime checks it.

Float stages are written as float operators. In the integer stage every value with codes becomes QuantizeLinear and
DequantizeLinear (QDQ) around float operators: inputs and outputs of the model are float32 and keep their names, weights are
INT8 or INT4 initializers (2-bit codes are stored as INT4, see ``element_types``) with one scale per channel, biases int32 ones,
and what the library rounds once (a residual addition in the accumulators) is quantized once. Limits that the type of the codes
implies are left to quantization. Outputs of 32 bits stay float: there is no such QuantizeLinear. The operator set is the lowest
that has all the types: 13 for 8 and 32 bits, 21 for 4 and 16.

Scales of weights are those that the library's rounded multipliers stand for, so that a runtime computes with the same factors.
All inputs and outputs are float32, also those that are whole numbers, such as the indices of an embedding or of an argmax.
A runtime rounds halves to even and the library up, and a runtime may compute layers in float32: codes differ by one now and
then, so the agreement of classes is high but not 100 %.

EXPORT001: operators that have no ONNX form here, all of the graph's.
EXPORT002: the file cannot be written, or is larger than ONNX's limit of 2 GiB for one file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from qcompiler.errors import CompileError, InternalError
from qcompiler.exporters.call import Call
from qcompiler.exporters.constants import Constants
from qcompiler.exporters.element_types import can_quantize, element_type
from qcompiler.exporters.functions import unknown_names
from qcompiler.exporters.onnx_builder import OLDEST_OPSET, OnnxBuilder
from qcompiler.exporters.table import EMITTERS
from qcompiler.importers.builder import FinalActivation
from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import Graph, Node, Value

if TYPE_CHECKING:
    from onnx import ModelProto

SOFTMAX: Final = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}
LARGEST_FILE: Final = (1 << 31) - 1  # bytes: protobuf's limit


def to_onnx(graph: Graph, final_activations: Sequence[FinalActivation] = ()) -> ModelProto:
    """The ONNX model of ``graph``, float in, float out, with the softmaxes that the import left out put back.

    Raises CompileError EXPORT001 if operators have no ONNX form; InternalError if the ONNX checker refuses the result.
    """
    import onnx

    lines = dict.fromkeys(line for node in graph.nodes for line in _unsayable(node))
    if lines:
        problem = "\n".join((f"{len(lines)} operators cannot be written as ONNX:", *lines))
        raise CompileError("EXPORT001", graph.name, problem, f"replace them; known are {', '.join(EMITTERS)}")
    opset = OLDEST_OPSET
    while True:
        writer = _Writer(graph, final_activations, OnnxBuilder(graph.values, opset))
        model = writer.run()
        if writer.builder.needed <= opset:
            break
        opset = writer.builder.needed
    if model.ByteSize() <= LARGEST_FILE:
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as problem:
            raise InternalError(f"the ONNX checker refuses what {graph.name} became: {problem}") from problem
    return model


def _unsayable(node: Node) -> list[str]:
    """What of a node ONNX has no form for, with the layer's name; a table needs no words."""
    missing = [node.op] if node.op not in EMITTERS else unknown_names(node) if node.op == "function" else []
    return [f"{node.origin or node.output.name} ({name})" for name in missing]


def write_onnx(model: ModelProto, path: Path) -> None:
    """Write the file under a temporary name and rename it; EXPORT002 where that cannot be done."""
    if model.ByteSize() > LARGEST_FILE:
        problem = f"it has {model.ByteSize() / 2**30:.1f} GiB, an ONNX file has at most 2"
        raise CompileError("EXPORT002", str(path), problem, "export a part of the model")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        temporary.replace(path)
    except OSError as problem:
        temporary.unlink(missing_ok=True)
        what = f"the file cannot be written: {problem.strerror}"
        raise CompileError("EXPORT002", str(path), what, "name a file in a folder that exists and can be written") from None


class _Writer:
    """Walks a graph once. ``tensors``: the ONNX tensor with the real numbers of each value."""

    def __init__(self, graph: Graph, final_activations: Sequence[FinalActivation], builder: OnnxBuilder) -> None:
        self.graph = graph
        self.builder = builder
        self.constants = Constants(graph, builder)
        self.tensors: dict[str, str] = {}
        self.endings = {graph.outputs[ending.output]: ending for ending in final_activations}

    def run(self) -> ModelProto:
        for value in self.graph.inputs:
            self._input(value)
        for node in self.graph.nodes:
            call = Call(self.graph, node, self.builder, self.tensors, self.constants)
            self._deliver(node.output, EMITTERS[node.op](call))
        for name in self.graph.outputs:
            self._output(name)
        return self.builder.finish(self.graph.name)

    def _input(self, value: Value) -> None:
        from onnx import TensorProto

        self.builder.input(value.name, TensorProto.FLOAT, value.type.shape)
        dtype = value.type.dtype
        coded = value.scale is not None and isinstance(dtype, IntegerType) and can_quantize(dtype)
        real = self.builder.unique(f"{value.name}.real")
        self.tensors[value.name] = self._quantized(value, value.name, real) if coded else value.name

    def _deliver(self, value: Value, tensor: str) -> None:
        """Give the results of a node their place: through codes, where the value has some."""
        name = self.builder.unique(f"{value.name}.logits") if value.name in self.endings else value.name
        dtype = value.type.dtype
        if value.scale is not None and isinstance(dtype, IntegerType) and can_quantize(dtype):
            self._quantized(value, tensor, name)
        elif tensor in self.tensors.values() or not self.builder.rename_last(tensor, name):
            self.builder.node("Identity", [tensor], f"{value.name}.identity", name)
        self.tensors[value.name] = name

    def _quantized(self, value: Value, tensor: str, name: str) -> str:
        """``tensor`` through the codes of ``value``; the result is called ``name``."""
        assert isinstance(value.type.dtype, IntegerType)
        element = element_type(value.type.dtype)
        scale = self.builder.initializer(f"{value.name}.scale", value.scale)
        zero = self.builder.codes(f"{value.name}.zero", np.array(value.zero or 0), element)
        codes = self.builder.unique(f"{value.name}.codes")
        self.builder.node("QuantizeLinear", [tensor, scale, zero], f"{value.name}.quantize", codes)
        return self.builder.node("DequantizeLinear", [codes, scale, zero], f"{value.name}.dequantize", name)

    def _output(self, name: str) -> None:
        from onnx import TensorProto

        tensor, result = self.tensors[name], name
        if name in self.endings:
            ending = self.endings[name]
            self.builder.node(SOFTMAX[ending.function], [tensor], ending.origin or f"{name}.softmax", name, axis=ending.axis)
        elif name not in self.graph.producer:  # an input: its name is taken
            result = self.builder.unique(f"{name}.output")
            self.builder.node("Identity", [tensor], f"{name}.identity", result)
        self.builder.output(result, TensorProto.FLOAT, self.graph.values[name].type.shape)
