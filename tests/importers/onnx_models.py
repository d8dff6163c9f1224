"""Small ONNX models made by hand, and what every one of them has to give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from qcompiler.importers.load import import_model
from qcompiler.ir.graph import Graph
from tests.importers.check import Draw, check_graph, normal_numbers

Shape = Sequence[int | str | None]
RNG = np.random.default_rng(1)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def shaped(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the output shapes that the checker wants."""
    model = onnx.shape_inference.infer_shapes(model)
    for output in model.graph.output:
        if not output.type.tensor_type.HasField("shape"):
            output.type.tensor_type.shape.SetInParent()
    return model


def model_of(
    nodes: Sequence[onnx.NodeProto],
    shape: Shape = ("batch", 3, 9, 11),
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 17,
    output: str = "y",
    **more: Any,
) -> onnx.ModelProto:
    """A model from ``x`` to ``y``."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", more.get("type", TensorProto.FLOAT), shape), *more.get("inputs", [])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, k) for k, v in (constants or {}).items()],
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("custom", 1), helper.make_opsetid("com.microsoft", 1)]
    model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=domains, ir_version=8))
    return shaped(model)


def node(op: str, *inputs: str, output: str = "y", name: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs or ["x"], [output], name or output, **attributes)


def constant_node(output: str, *values: int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [output], output, value=numpy_helper.from_array(ints(*values)))


def check(
    model: onnx.ModelProto, batches: Sequence[int] = (1, 3), dynamic: onnx.ModelProto | None = None, draw: Draw = normal_numbers
) -> Graph:
    """The imported graph, compared with what ONNX Runtime gives for ``dynamic`` (or the model itself)."""
    session = onnxruntime.InferenceSession((dynamic or model).SerializeToString(), providers=["CPUExecutionProvider"])
    graph = import_model(model)
    names = [i.name for i in session.get_inputs()]
    check_graph(graph, lambda arrays: session.run(None, dict(zip(names, arrays, strict=True))), batches, draw)
    return graph


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]
