"""ONNX files and ``ModelProto``s to a float graph. The operators stand in ``onnx_operators``.

Codes of this module:
    IMPORT002: no such file, not an ONNX model, or one that the ONNX checker rejects.
    IMPORT005: an input without a batch in front, or inputs with different batches.
    IMPORT006: a dimension other than the batch is not known.
    IMPORT007: an input that is not a float32 tensor.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qcompiler.errors import CompileError
from qcompiler.importers import emit
from qcompiler.importers.builder import (
    UNKNOWN,
    Ending,
    FixedBatchError,
    GraphBuilder,
    ImportedModel,
    Known,
    Layer,
    Unknown,
    UnsupportedError,
)
from qcompiler.importers.onnx_operators import OPERATORS, Call
from qcompiler.importers.onnx_sizes import SIZE_OPERATORS, Sizes
from qcompiler.ir.graph import Value

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

OLDEST_OPSET = 7


def import_path(path: str | Path) -> ImportedModel:
    """Import an ONNX file; its external data is read from the folder of the file."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    path = Path(path)
    remedy = "pass the path of an ONNX file (with its external data beside it), or another model"
    if not path.is_file():
        raise CompileError("IMPORT002", str(path), "there is no such file", remedy)
    try:
        model = onnx.load(path)
    except DecodeError:
        raise CompileError("IMPORT002", str(path), "the file is not an ONNX model", remedy) from None
    except (OSError, onnx.checker.ValidationError) as problem:
        text = f"its external data cannot be read: {_first_line(problem)}"
        raise CompileError("IMPORT002", str(path), text, remedy) from problem
    return import_proto(model, path.stem)


def import_proto(model: ModelProto, name: str | None = None) -> ImportedModel:
    """Import a model in memory."""
    name = name or model.graph.name or "model"
    model = _checked(model, name)
    return _OnnxGraph(model, name).convert()


def _first_line(problem: Exception) -> str:
    return next((line.strip() for line in str(problem).splitlines() if line.strip()), type(problem).__name__)


def _checked(model: ModelProto, name: str) -> ModelProto:
    """The model with its local functions inlined; IMPORT002 unless it is a valid one of a supported version."""
    import onnx
    from onnx import inliner

    remedy = "check the file with onnx.checker.check_model, or export the model again"
    if not model.graph.node:
        raise CompileError("IMPORT002", name, "the file is not an ONNX model: it has no graph with nodes", remedy)
    if any(onnx.external_data_helper.uses_external_data(t) for t in model.graph.initializer):
        remedy = "pass the path of the file, or call onnx.load_external_data_for_model"
        raise CompileError("IMPORT002", name, "the weights of this ModelProto lie in files that it does not name fully", remedy)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as problem:
        raise CompileError("IMPORT002", name, f"the ONNX checker rejects the model: {_first_line(problem)}", remedy) from problem
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        problem_text = f"the model uses operator set {opset}, {OLDEST_OPSET} is the oldest that is supported"
        raise CompileError("IMPORT002", name, problem_text, "convert it with onnx.version_converter.convert_version(model, 13)")
    return inliner.inline_local_functions(model) if model.functions else model


class _OnnxGraph:
    """One conversion of a checked model."""

    def __init__(self, model: ModelProto, name: str) -> None:
        self.model = model
        self.builder = GraphBuilder(name)
        self.env: dict[str, Any] = {}
        self.batch: int | str | None = None  # the constant batch size, or the name of the symbolic one
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.outputs = [o.name for o in model.graph.output]

    def convert(self) -> ImportedModel:
        """The imported model; CompileError with everything that is in the way."""
        from onnx import numpy_helper

        graph = self.model.graph
        for tensor in graph.initializer:
            self.env[tensor.name] = Known(emit.as_floats(numpy_helper.to_array(tensor)), tensor.name)
        for sparse in graph.sparse_initializer:
            self.env[sparse.values.name] = UNKNOWN
            self.builder.reject(sparse.values.name, "sparse initializer")
        for info in graph.input:
            if info.name not in self.env:
                self.env[info.name] = self._input(info)
        for node in self._needed():
            self._convert_node(node)
        return self.builder.finish([self._result(name) for name in self.outputs])

    def _result(self, name: str) -> Any:
        result = self.env[name]
        return UNKNOWN if isinstance(result, Sizes) else result

    def _input(self, info: ValueInfoProto) -> Value:
        """An input with a symbolic batch in front."""
        from onnx import TensorProto

        where = f"{self.builder.name}, input {info.name}"
        tensor = info.type.tensor_type
        if tensor.elem_type != TensorProto.FLOAT:
            kind = TensorProto.DataType.Name(tensor.elem_type).lower() if info.type.HasField("tensor_type") else "no tensor"
            problem = f"the input has elements of type {kind}, not float32"
            raise CompileError("IMPORT007", where, problem, "export the model with float32 inputs")
        sizes = [d.dim_value if d.dim_value > 0 else d.dim_param or "?" for d in tensor.shape.dim]
        if not sizes:
            kind = "is a scalar" if tensor.HasField("shape") else "has no shape"
            raise CompileError("IMPORT005", where, f"the input {kind}, so no batch", "give it a batch in front")
        front, *rest = sizes
        if self.batch is not None and front != self.batch:
            problem = f"the input has a batch of {front}, the inputs before it of {self.batch}"
            raise CompileError("IMPORT005", where, problem, "export all inputs with the same batch dimension in front")
        self.batch = front
        numbers = [d for d in rest if isinstance(d, int)]
        if len(numbers) != len(rest):
            problem = f"the input is [{','.join(map(str, sizes))}]: only the batch may be dynamic"
            remedy = "set them with onnx.tools.update_model_dims, or export with constant sizes behind the batch"
            raise CompileError("IMPORT006", where, problem, remedy)
        return self.builder.input(info.name, numbers)

    def _needed(self) -> list[NodeProto]:
        """The nodes that the outputs depend on, in order."""
        needed = set(self.outputs)
        kept: list[NodeProto] = []
        for node in reversed(self.model.graph.node):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(node.input)
                for attribute in node.attribute:  # what the branches of If and Loop read
                    for inner in [attribute.g, *attribute.graphs]:
                        needed.update(i for n in inner.node for i in n.input)
        self.readers: dict[str, int] = {}
        for node in kept:
            for name in node.input:
                self.readers[name] = self.readers.get(name, 0) + 1
        return kept[::-1]

    def _convert_node(self, node: NodeProto) -> None:
        from onnx import helper

        inputs = [self.env.get(name) if name else None for name in node.input]
        label = node.name or next(o for o in node.output if o)
        operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        final = node.output[0] in self.outputs and node.output[0] not in self.readers
        results: list[Any]
        try:
            if not any(isinstance(x, Value | Unknown | Sizes | Ending) for x in inputs):
                results = self._fold(node)
            elif operator in SIZE_OPERATORS and (size := SIZE_OPERATORS[operator](node, inputs)) is not None:
                results = [size]
            elif operator not in OPERATORS:
                raise UnsupportedError("not supported")
            elif any(isinstance(x, Unknown) for x in inputs):
                if "Softmax" in operator and not final:
                    raise UnsupportedError(emit.LAST_STEP)
                results = []
            else:
                name = node.output[0] if node.output[0] in self.outputs else label
                layer = Layer(self.builder, label, operator, name, final=final)
                attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
                batch = self.batch if isinstance(self.batch, int) else None
                extra = [o for o in node.output[1:] if o and (o in self.readers or o in self.outputs)]
                results = [OPERATORS[operator](Call(layer, inputs, attributes, self.opset, batch, bool(extra)))]
        except UnsupportedError as problem:
            results = [self.builder.reject(label, operator, str(problem))]
        except FixedBatchError as problem:
            results = [self.builder.reject_batch(label, operator, str(problem))]
        for index, name in enumerate(node.output):
            if name:
                self.env[name] = results[index] if index < len(results) else UNKNOWN

    def _fold(self, node: NodeProto) -> list[Any]:
        """Run an operator on constants by ONNX's reference implementation."""
        from onnx import TypeProto, helper
        from onnx.reference import ReferenceEvaluator

        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise UnsupportedError("operators with subgraphs are not supported")
        if node.op_type in ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"):
            raise UnsupportedError("random values are not supported")
        read = {name: self.env[name].data for name in node.input if name}
        inputs, outputs = ([helper.make_value_info(n, TypeProto()) for n in names if n] for names in (read, node.output))
        graph = helper.make_graph([node], "fold", inputs, outputs)
        model = helper.make_model(graph, opset_imports=self.model.opset_import)
        try:
            results = ReferenceEvaluator(model).run(None, read)
        except Exception as problem:  # the reference implementation raises whatever its numpy code raises
            raise UnsupportedError(f"it cannot be evaluated on its constants: {_first_line(problem)}") from problem
        named = zip((o for o in node.output if o), results, strict=True)
        known = {name: Known(emit.as_floats(np.asarray(x)), name) for name, x in named}
        return [known.get(name) for name in node.output]
