"""ONNX files and ``ModelProto``s to a float graph. The operators stand in ``onnx_operators``.

Codes of this module:
    IMPORT002: no such file, not an ONNX model, one that the ONNX checker rejects, or that onnx cannot convert to a newer version.
    IMPORT003: an example input that does not fit the model's input.
    IMPORT005: an input without a batch in front, or inputs with different batches.
    IMPORT006: a dimension other than the batch is not known.
    IMPORT007: an input that is neither a float32 tensor nor one of integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qcompiler.errors import CompileError, InternalError
from qcompiler.importers import operands
from qcompiler.importers.builder import (
    UNKNOWN,
    Ending,
    FixedBatchError,
    GraphBuilder,
    ImportedModel,
    Known,
    Layer,
    Merged,
    Repeated,
    Unknown,
    UnsupportedError,
)
from qcompiler.importers.emit_where import Condition
from qcompiler.importers.onnx_call import Call, element_type
from qcompiler.importers.onnx_folding import check_folded
from qcompiler.importers.onnx_operators import OPERATORS, REASONS
from qcompiler.importers.onnx_quantized import Quantized, fold_dequantize, on_codes
from qcompiler.importers.onnx_sizes import SIZE_OPERATORS, Sizes
from qcompiler.ir.graph import Array, Value

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

OLDEST_OPSET = 6
"""Older models are converted to this operator set by onnx's version converter."""

_NOT_CONSTANT = (Value, Unknown, Sizes, Ending, Merged, Repeated, Quantized, Condition)
_READ_INDICES = ("Cast", "Gather", "Identity")


PASSES_ON: Final = ("Identity", "Cast", "Dropout")
"""Operators that a final softmax may stand before."""


def import_path(path: str | Path, examples: Sequence[Sequence[int]] = ()) -> ImportedModel:
    """Import an ONNX file; its external data is read from the folder of the file. ``examples`` as for :func:`import_proto`."""
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
    except Exception as problem:  # whatever the checks of its paths and sizes raise
        text = f"its external data cannot be read: {_first_line(problem)}"
        raise CompileError("IMPORT002", str(path), text, remedy) from problem
    return import_proto(model, path.stem, examples)


def import_proto(model: ModelProto, name: str | None = None, examples: Sequence[Sequence[int]] = ()) -> ImportedModel:
    """Import a model in memory. ``examples``: shapes of example inputs, for sizes that the model leaves open."""
    name = name or model.graph.name or "model"
    model = _checked(model, name)
    return _OnnxGraph(model, name, examples).convert()


def _first_line(problem: Exception) -> str:
    return next((line.strip() for line in str(problem).splitlines() if line.strip()), type(problem).__name__)


def _checked(model: ModelProto, name: str) -> ModelProto:
    """The model with its local functions inlined; IMPORT002 unless it is a valid one of a supported version."""
    import onnx
    from onnx import inliner

    remedy = "check the file with onnx.checker.check_model, or export the model again"
    if not model.graph.node:
        raise CompileError("IMPORT002", name, "the file is not an ONNX model: it has no graph with nodes", remedy)
    if any(onnx.external_data_helper.uses_external_data(t) for t in _tensors(model.graph)):
        remedy = "pass the path of the file, or call onnx.load_external_data_for_model"
        raise CompileError("IMPORT002", name, "the weights of this ModelProto lie in files that it does not name fully", remedy)
    try:
        onnx.checker.check_model(model)
    except Exception as problem:  # the checker raises whatever its C++ code does
        raise CompileError("IMPORT002", name, f"the ONNX checker rejects the model: {_first_line(problem)}", remedy) from problem
    model = _converted(model, name)
    if not model.functions:
        return model
    try:
        return inliner.inline_local_functions(model)
    except Exception as problem:  # as above
        raise CompileError(
            "IMPORT002", name, f"the model's own functions cannot be inlined: {_first_line(problem)}", remedy
        ) from problem


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every tensor of a graph and of the graphs in it."""
    yield from graph.initializer
    for attribute in (a for node in graph.node for a in node.attribute):
        yield from [attribute.t, *attribute.tensors]
        for inner in [attribute.g, *attribute.graphs]:
            yield from _tensors(inner)


def _array(tensor: TensorProto, name: str) -> Array:
    """The data of a tensor; IMPORT002 where it is not what the tensor says."""
    from onnx import numpy_helper

    try:
        return operands.as_floats(numpy_helper.to_array(tensor))
    except Exception as problem:  # whatever its numpy code raises
        why = f"the tensor {tensor.name!r} {list(tensor.dims)} cannot be read: {_first_line(problem)}"
        raise CompileError("IMPORT002", name, why, "export the model again: the file is damaged") from problem


def _converted(model: ModelProto, name: str) -> ModelProto:
    """The model in a supported operator set."""
    from onnx import version_converter

    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), OLDEST_OPSET)
    if opset >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as problem:  # the converter raises whatever its C++ code does
        why = f"the model uses operator set {opset}, and onnx cannot convert it to {OLDEST_OPSET}: {_first_line(problem)}"
        raise CompileError("IMPORT002", name, why, "export the model again, with operator set 13 or later") from problem


class _OnnxGraph:
    """One conversion of a checked model."""

    def __init__(self, model: ModelProto, name: str, examples: Sequence[Sequence[int]] = ()) -> None:
        self.model = model
        self.examples = iter(examples)
        self.builder = GraphBuilder(name)
        self.env: dict[str, Any] = {}
        self.batch: int | str | None = None  # the constant batch size, or the name of the symbolic one
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), OLDEST_OPSET)
        self.outputs = [o.name for o in model.graph.output]

    def convert(self) -> ImportedModel:
        """The imported model; CompileError with everything that is in the way."""
        graph = self.model.graph
        for tensor in graph.initializer:
            self.env[tensor.name] = Known(_array(tensor, self.builder.name), tensor.name)
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
        if isinstance(result, Quantized):
            self.builder.notes.append(f"the output {name} is a tensor of codes in the model; here it is float")
            return result.value
        return UNKNOWN if isinstance(result, Sizes) else result

    def _input(self, info: ValueInfoProto) -> Value:
        """An input with a symbolic batch in front; integers choose rows of tables."""
        from onnx import TensorProto

        where = f"{self.builder.name}, input {info.name}"
        tensor = info.type.tensor_type
        integer = tensor.elem_type in (TensorProto.INT32, TensorProto.INT64)
        if tensor.elem_type != TensorProto.FLOAT and not integer:
            kind = element_type(tensor.elem_type) if info.type.HasField("tensor_type") else "no tensor"
            problem = f"the input has elements of type {kind}, not float32"
            raise CompileError("IMPORT007", where, problem, "export the model with float32 inputs")
        sizes = [d.dim_value if d.dim_value > 0 else d.dim_param or "?" for d in tensor.shape.dim]
        if not sizes:
            kind = "is a scalar" if tensor.HasField("shape") else "has no shape"
            raise CompileError("IMPORT005", where, f"the input {kind}, so no batch", "give it a batch in front")
        front, *rest = self._sized(sizes, where)
        if self.batch is not None and front != self.batch:
            problem = f"the input has a batch of {front}, the inputs before it of {self.batch}"
            raise CompileError("IMPORT005", where, problem, "export all inputs with the same batch dimension in front")
        self.batch = front
        self.builder.batch = front if isinstance(front, int) else None
        numbers = [d for d in rest if isinstance(d, int)]
        if len(numbers) != len(rest):
            problem = f"the input is [{','.join(map(str, sizes))}]: only the batch may be dynamic"
            remedy = "give example_inputs (calibration samples serve too): their sizes are taken, or set them in the model"
            raise CompileError("IMPORT006", where, problem, remedy)
        return self.builder.input(info.name, numbers, integer)

    def _sized(self, sizes: list[int | str], where: str) -> list[int | str]:
        """``sizes`` with those of the next example where the model leaves them open; IMPORT003 where it does not fit."""
        example = next(self.examples, None)
        if example is None:
            return sizes
        pairs = list(zip(sizes[1:], example[1:], strict=False))
        if len(example) != len(sizes) or any(isinstance(size, int) and size != given for size, given in pairs):
            problem = f"the example input is [{','.join(map(str, example))}], the model takes [{','.join(map(str, sizes))}]"
            raise CompileError("IMPORT003", where, problem, "pass an example with the model's own sizes, the batch in front")
        return [sizes[0], *(given if isinstance(size, str) else size for size, given in pairs)]

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
        passing = {o: node.input[0] for node in kept if node.op_type in PASSES_ON for o in node.output[:1]}
        self.last = {name for name in self.outputs if name not in self.readers}
        for name in list(self.last):  # what only an identity reads, whose result only leaves
            while (name := passing.get(name, "")) and self.readers[name] == 1 and name not in self.outputs:
                self.last.add(name)
        return kept[::-1]

    def _convert_node(self, node: NodeProto) -> None:
        inputs = [self.env.get(name) if name else None for name in node.input]
        label = node.name or next(o for o in node.output if o)
        operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        final = node.output[0] in self.last
        results: list[Any]
        try:
            if not any(isinstance(x, _NOT_CONSTANT) for x in inputs):
                results = self._fold(node, operator)
            elif isinstance(inputs[0], Ending) and operator in PASSES_ON:
                results = inputs[:1]
            elif operator in SIZE_OPERATORS and (size := SIZE_OPERATORS[operator](node, inputs)) is not None:
                results = [size]
            elif operator not in OPERATORS:
                raise UnsupportedError(REASONS.get(operator, "not supported"))
            elif any(isinstance(x, Unknown) for x in inputs):
                if "Softmax" in operator and not final:
                    raise UnsupportedError(operands.LAST_STEP)
                results = []
            else:
                results = self._results(self._call(node, operator, label, final, inputs))
        except UnsupportedError as problem:
            results = [self.builder.reject(label, operator, str(problem))]
        except FixedBatchError as problem:
            results = [self.builder.reject_batch(label, operator, str(problem))]
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as problem:
            self._blame(label, operator)
            raise InternalError(f"{label} ({operator}): {type(problem).__name__}: {problem}") from problem
        for index, name in enumerate(node.output):
            if name:
                self.env[name] = results[index] if index < len(results) else UNKNOWN

    def _blame(self, label: str, operator: str) -> None:
        """IMPORT002 where ONNX's own rules refuse the model: its checker reads attributes, not what follows from them."""
        from onnx import shape_inference

        try:
            shape_inference.infer_shapes(self.model, check_type=True, strict_mode=True, data_prop=True)
        except Exception as refused:  # whatever its C++ code raises
            why = f"the model does not follow ONNX's rules: {_first_line(refused)}"
            remedy = "check the file with onnx.checker.check_model(path, full_check=True), or export the model again"
            raise CompileError("IMPORT002", f"{self.builder.name}, {label} ({operator})", why, remedy) from refused

    def _call(self, node: NodeProto, operator: str, label: str, final: bool, inputs: list[Any]) -> Call:
        """The node for its handler; UnsupportedError where it reads what only few operators can read."""
        from onnx import helper

        whole = self.builder.integer_inputs | self.builder.index_values
        read = next((x.name for x in inputs if isinstance(x, Value) and x.name in whole), None)
        if read is not None and operator not in _READ_INDICES:
            raise UnsupportedError(f"it reads the integers {read!r}, which only Gather from a constant table can read")
        names = tuple(o if o in self.outputs or not o else f"{label}.{i}" for i, o in enumerate(node.output))
        if len(names) == 1:
            names = (node.output[0] if node.output[0] in self.outputs else label,)
        layer = Layer(self.builder, label, operator, names[0] if names[0] in self.outputs else label, final=final)
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        extra = [o for o in node.output[1:] if o and (o in self.readers or o in self.outputs)]
        return Call(layer, inputs, attributes, self.opset, names, bool(extra))

    def _results(self, call: Call) -> list[Any]:
        """What the handler gives, one for each output."""
        operator = call.layer.operator
        handler = OPERATORS[operator]
        quantized = operator.startswith(("QLinear", "com.microsoft.Q")) or operator.endswith("DequantizeLinear")
        if not quantized and any(isinstance(x, Quantized) for x in call.inputs):
            handler = on_codes(operator, handler)
        results = handler(call)
        return list(results) if isinstance(results, tuple) else [results]

    def _fold(self, node: NodeProto, operator: str) -> list[Any]:
        """Run an operator on constants by ONNX's reference implementation."""
        from onnx import TypeProto, helper
        from onnx.reference import ReferenceEvaluator

        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise UnsupportedError("operators with subgraphs are not supported")
        if node.op_type in ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"):
            raise UnsupportedError("random values are not supported")
        if operator.endswith("DequantizeLinear"):
            inputs = [self.env[name] if name else None for name in node.input]
            return [fold_dequantize(self._call(node, operator, node.output[0], False, inputs))]
        read = {name: self.env[name].data for name in node.input if name}
        inner, outer = ([helper.make_value_info(n, TypeProto()) for n in names if n] for names in (read, node.output))
        graph = helper.make_graph([node], "fold", inner, outer)
        model = helper.make_model(graph, opset_imports=self.model.opset_import)
        check_folded(node, read, self.model.opset_import)
        try:
            results = ReferenceEvaluator(model).run(None, read)
        except Exception as problem:  # the reference implementation raises whatever its numpy code raises
            raise UnsupportedError(f"it cannot be evaluated on its constants: {_first_line(problem)}") from problem
        named = zip((o for o in node.output if o), results, strict=True)
        known = {name: Known(operands.as_floats(np.asarray(x)), name) for name, x in named}
        return [known.get(name) for name in node.output]
