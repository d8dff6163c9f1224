"""ONNX files and ``ModelProto``s to a float graph. The operators stand in ``onnx_operators``.

Codes of this module:
    IMPORT002: no such file, not an ONNX model, data that cannot be read, or a model that does not follow ONNX's rules.
    IMPORT003: an example input that does not fit the model's input.
    IMPORT005: an input without a batch in front, or inputs with different batches.
    IMPORT006: a dimension other than the batch is not known.
    IMPORT007: an input that is neither a float32 tensor nor one of integers.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    Missing,
    Repeated,
    Unknown,
    UnsupportedError,
)
from qcompiler.importers.emit_condition import TRUTH_VALUES, Condition
from qcompiler.importers.onnx_call import Call, element_type
from qcompiler.importers.onnx_check import checked_model, first_line, operator_set
from qcompiler.importers.onnx_external import ExternalData, is_external
from qcompiler.importers.onnx_folding import check_folded
from qcompiler.importers.onnx_inference import float_shape, inferred_types
from qcompiler.importers.onnx_operators import NORMALIZATIONS, OPERATORS, REASONS
from qcompiler.importers.onnx_quantized import WIDTHS, Quantized, fold_dequantize, input_codes, on_codes
from qcompiler.importers.onnx_sizes import SIZE_OPERATORS, Sizes
from qcompiler.ir.graph import Array, Value

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

_NOT_CONSTANT = (Value, Unknown, Sizes, Ending, Merged, Repeated, Quantized, Condition)
_READ_TRUTH = ("And", "Cast", "Not", "Or", "Where", "Xor")
_FLOATS: Final = ("float", "float16", "bfloat16", "double")
_READ_INDICES = ("Cast", "Gather", "Identity")
_RANKINGS: Final = ("ArgMax", "ArgMin", "TopK")
"""Operators that read the order of elements, which a softmax does not change."""


def import_path(path: str | Path, examples: Sequence[Sequence[int]] = ()) -> ImportedModel:
    """Import an ONNX file; its external data is read from the folder of the file. ``examples`` as for :func:`import_proto`."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    path = Path(path)
    remedy = "pass the path of an ONNX file (with its external data beside it), or another model"
    if not path.is_file():
        raise CompileError("IMPORT002", str(path), "there is no such file", remedy)
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        raise CompileError("IMPORT002", str(path), "the file is not an ONNX model", remedy) from None
    external = ExternalData(path.parent)
    try:
        external.check(model.graph)
    except Exception as problem:  # whatever onnx's checks of its paths and sizes raise
        text = f"its external data cannot be read: {first_line(problem)}"
        raise CompileError("IMPORT002", str(path), text, remedy) from problem
    return _OnnxGraph(checked_model(model, path.stem, path), path.stem, examples, external).convert()


def import_proto(model: ModelProto, name: str | None = None, examples: Sequence[Sequence[int]] = ()) -> ImportedModel:
    """Import a model in memory. ``examples``: shapes of example inputs, for sizes that the model leaves open."""
    name = name or model.graph.name or "model"
    return _OnnxGraph(checked_model(model, name, None), name, examples).convert()


class _OnnxGraph:
    """One conversion of a checked model."""

    def __init__(
        self, model: ModelProto, name: str, examples: Sequence[Sequence[int]] = (), external: ExternalData | None = None
    ) -> None:
        self.model = model
        self.examples = iter(examples)
        self.external = external
        self.builder = GraphBuilder(name)
        self.env: dict[str, Any] = {}
        self.tensors: dict[str, TensorProto] = {}  # initializers that no node has read yet
        self.batch: int | str | None = None  # the constant batch size, or the name of the symbolic one
        self.opset = operator_set(model)
        self.outputs = [o.name for o in model.graph.output]
        self.read: set[str] = set()

    def convert(self) -> ImportedModel:
        """The imported model; CompileError with everything that is in the way."""
        graph = self.model.graph
        nodes = _needed(graph)
        self.read.update(name for node in nodes for name in _reads(node))
        self._begin(graph)
        for info in graph.input:
            if info.name not in self.tensors:
                self.env[info.name] = self._input(info)
        last = {name: node for node in nodes for name in _reads(node)}
        for node in nodes:
            self._convert_node(node)
            for name in _reads(node):  # large constants leave as soon as they can
                if last[name] is node and name not in self.outputs:
                    self.env.pop(name, None)
        return self.builder.finish([self._result(name) for name in self.outputs])

    def _begin(self, graph: GraphProto) -> None:
        """The constants of a graph, or of a branch of it."""
        self.tensors.update((tensor.name, tensor) for tensor in graph.initializer)
        for sparse in graph.sparse_initializer:
            self.env[sparse.values.name] = UNKNOWN
            self.builder.reject(sparse.values.name, "sparse initializer")

    def _operand(self, name: str) -> Any:
        """What a name stands for; None where there is none."""
        if name in self.tensors:
            self.env[name] = Known(self._array(self.tensors.pop(name)), name)
        return self.env.get(name)

    def _array(self, tensor: TensorProto) -> Array:
        """The data of a tensor; IMPORT002 where it is not what the tensor says."""
        from onnx import numpy_helper

        try:
            outside = self.external is not None and is_external(tensor)
            data = self.external.array(tensor) if outside and self.external else numpy_helper.to_array(tensor)
            return _frozen(data)
        except Exception as problem:  # whatever onnx's numpy code raises
            why = f"the tensor {tensor.name!r} {list(tensor.dims)} cannot be read: {first_line(problem)}"
            raise CompileError("IMPORT002", self.builder.name, why, "export the model again: the file is damaged") from problem

    def _result(self, name: str) -> Any:
        result = self._operand(name)
        if isinstance(result, Quantized):
            self.builder.notes.append(f"the output {name} is a tensor of codes in the model; here it is float")
            return result.value
        if isinstance(result, Condition):
            return self.builder.reject("the model's outputs", f"output {name}", TRUTH_VALUES)
        return UNKNOWN if isinstance(result, Sizes) else result

    def _input(self, info: ValueInfoProto) -> Value | Quantized:
        """An input with a symbolic batch in front; integers choose rows of tables, those of 8 bits are codes."""
        from onnx import TensorProto

        where = f"{self.builder.name}, input {info.name}"
        tensor = info.type.tensor_type
        integer = tensor.elem_type in (TensorProto.INT32, TensorProto.INT64)
        kind = element_type(tensor.elem_type) if info.type.HasField("tensor_type") else "no tensor"
        if kind not in (*_FLOATS, *WIDTHS) and not integer:
            problem = f"the input has elements of type {kind}, not float32"
            raise CompileError("IMPORT007", where, problem, "export the model with float32 inputs")
        if kind != "float" and not integer:
            self.builder.notes.append(f"the input {info.name} is {kind} in the model; here it takes the same numbers as float32")
        example = next(self.examples, None)
        if not tensor.HasField("shape") and example is None:
            remedy = "give example_inputs (calibration samples serve too): their sizes are taken, or set them in the model"
            raise CompileError("IMPORT006", where, "the input has no shape", remedy)
        sizes = [d.dim_value if d.dim_value > 0 else d.dim_param or "?" for d in tensor.shape.dim]
        if not tensor.HasField("shape"):
            sizes = [self.batch or "?", *["?" for _ in (example or ())[1:]]]
        if not sizes:
            raise CompileError("IMPORT005", where, "the input is a scalar, so no batch", "give it a batch in front")
        front, *rest = self._sized(sizes, example, where)
        if self.batch not in (None, "?", front):
            problem = f"the input has a batch of {front}, the inputs before it of {self.batch}"
            raise CompileError("IMPORT005", where, problem, "export all inputs with the same batch dimension in front")
        self.batch = front
        self.builder.batch = front if isinstance(front, int) else None
        numbers = [d for d in rest if isinstance(d, int)]
        if len(numbers) != len(rest):
            problem = f"the input is [{','.join(map(str, sizes))}]: only the batch may be dynamic"
            remedy = "give example_inputs (calibration samples serve too): their sizes are taken, or set them in the model"
            raise CompileError("IMPORT006", where, problem, remedy)
        value = self.builder.input(info.name, numbers, integer)
        return input_codes(Layer(self.builder, info.name, "input", info.name), value, kind) if kind in WIDTHS else value

    @staticmethod
    def _sized(sizes: list[int | str], example: Sequence[int] | None, where: str) -> list[int | str]:
        """``sizes`` with those of an example where the model leaves them open; IMPORT003 where it does not fit."""
        if example is None:
            return sizes
        pairs = list(zip(sizes[1:], example[1:], strict=False))
        if len(example) != len(sizes) or any(isinstance(size, int) and size != given for size, given in pairs):
            problem = f"the example input is [{','.join(map(str, example))}], the model takes [{','.join(map(str, sizes))}]"
            raise CompileError("IMPORT003", where, problem, "pass an example with the model's own sizes, the batch in front")
        return [sizes[0], *(given if isinstance(size, str) else size for size, given in pairs)]

    def _convert_node(self, node: NodeProto) -> None:
        label = node.name or next(o for o in node.output if o)
        operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        inputs = self._inputs(node, operator)
        results: list[Any]
        try:
            if any(isinstance(x, Unknown) for x in inputs) and (operator in {*OPERATORS, *SIZE_OPERATORS, "If"}):
                results = self._stand_ins(node, operator, inputs)
            elif operator == "If":
                results = self._branch(node, inputs[0])
            elif not any(isinstance(x, _NOT_CONSTANT) for x in inputs):
                results = self._fold(node, operator)
            elif isinstance(inputs[0], Ending) and operator not in _RANKINGS:
                results = inputs[:1]
            elif operator in SIZE_OPERATORS and (size := SIZE_OPERATORS[operator](node, inputs)) is not None:
                results = [size]
            elif operator not in OPERATORS:
                raise UnsupportedError(REASONS.get(operator, "not supported"))
            else:
                results = self._results(self._call(node, operator, label, inputs))
        except (UnsupportedError, FixedBatchError) as problem:
            self.builder.refuse(problem, label, operator, inputs)
            results = self._stand_ins(node, operator, inputs)
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as problem:
            if not self.builder.is_uncertain(inputs):
                self._blame(label, operator)
                raise InternalError(f"{label} ({operator}): {type(problem).__name__}: {problem}") from problem
            results = []
        for index, name in enumerate(node.output):
            if name:
                self.env[name] = results[index] if index < len(results) else UNKNOWN

    def _inputs(self, node: NodeProto, operator: str) -> list[Any]:
        """The operands; a softmax remains one for what reads the order of its elements, passes it on, or asks for its shape."""
        inputs = [self._operand(name) for name in node.input]
        if operator not in _READ_TRUTH:
            inputs = [x.numbers if isinstance(x, Condition) else x for x in inputs]
        if operator in _RANKINGS or (operator in ("Cast", "Dropout", "Identity") and _keeps_floats(node)):
            return [self.builder.read(x) if isinstance(x, Missing) else x for x in inputs]
        if operator == "Shape":
            return [x.value if isinstance(x, Ending | Quantized) else x for x in inputs]
        return [self.builder.read(x) for x in inputs]

    def _stand_ins(self, node: NodeProto, operator: str, inputs: list[Any]) -> list[Value | Unknown]:
        """What stands for the results of a node that is not computed: values of the shapes that they are known to have."""
        if operator in NORMALIZATIONS and isinstance(inputs[0], Value):
            return [self.builder.stand_in(inputs[0].type.shape)]
        names = dict.fromkeys(_reads(node))
        inferred = inferred_types(node, {name: self._operand(name) for name in names}, self.model.opset_import)
        graph = self.model.graph
        declared = {x.name: x.type.tensor_type for x in [*graph.value_info, *graph.output] if x.name in node.output}
        kinds = [inferred.get(name) or declared.get(name) for name in node.output]
        return [UNKNOWN if kind is None else self.builder.stand_in(float_shape(kind, self.batch)) for kind in kinds]

    def _branch(self, node: NodeProto, condition: object) -> list[Any]:
        """The results of the branch of an If that a condition, known from constants and shapes, chooses."""
        if not isinstance(condition, Known):
            on = "the batch" if isinstance(condition, Sizes) else "the model's input"
            raise UnsupportedError(f"its condition depends on {on}")
        chosen = "then_branch" if np.any(condition.data) else "else_branch"
        branch = next(attribute.g for attribute in node.attribute if attribute.name == chosen)
        self._begin(branch)
        for inner in _needed(branch):
            self._convert_node(inner)
        return [self._operand(output.name) for output in branch.output]

    def _blame(self, label: str, operator: str) -> None:
        """IMPORT002 where ONNX's own rules refuse the model: its checker reads attributes, not what follows from them."""
        from onnx import shape_inference

        try:
            shape_inference.infer_shapes(self.model, check_type=True, strict_mode=True, data_prop=True)
        except Exception as refused:  # whatever its C++ code raises
            why = f"the model does not follow ONNX's rules: {first_line(refused)}"
            remedy = "check the file with onnx.checker.check_model(path, full_check=True), or export the model again"
            raise CompileError("IMPORT002", f"{self.builder.name}, {label} ({operator})", why, remedy) from refused

    def _call(self, node: NodeProto, operator: str, label: str, inputs: list[Any]) -> Call:
        """The node for its handler; UnsupportedError where it reads what only few operators can read."""
        from onnx import helper

        whole = self.builder.integer_inputs | self.builder.index_values
        read = next((x.name for x in inputs if isinstance(x, Value) and x.name in whole), None)
        if read is not None and operator not in _READ_INDICES:
            raise UnsupportedError(f"it reads the integers {read!r}, which only Gather from a constant table can read")
        names = tuple(o if o in self.outputs or not o else f"{label}.{i}" for i, o in enumerate(node.output))
        if len(names) == 1:
            names = (node.output[0] if node.output[0] in self.outputs else label,)
        layer = Layer(self.builder, label, operator, names[0] if names[0] in self.outputs else label)
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        extra = [o for o in node.output[1:] if o and (o in self.read or o in self.outputs)]
        return Call(layer, inputs, attributes, self.opset, names, bool(extra))

    def _results(self, call: Call) -> list[Any]:
        """What the handler gives, one for each output."""
        operator = call.layer.operator
        handler = OPERATORS[operator]
        quantized = operator.startswith(("QLinear", "com.microsoft.Q")) or operator.endswith(("DequantizeLinear", "Cast"))
        if not quantized and any(isinstance(x, Quantized) for x in call.inputs):
            handler = on_codes(operator, handler)
        results = handler(call)
        return list(results) if isinstance(results, tuple) else [results]

    def _fold(self, node: NodeProto, operator: str) -> list[Any]:
        """Run an operator on constants by ONNX's reference implementation."""
        from onnx import TypeProto, helper
        from onnx.reference import ReferenceEvaluator

        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise UnsupportedError(REASONS.get(operator, "operators with subgraphs are not supported"))
        if node.op_type in ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"):
            raise UnsupportedError("random values are not supported")
        if operator == "Constant" and node.attribute[0].name == "value":
            return [Known(self._array(node.attribute[0].t), node.output[0])]
        read = {name: self._operand(name) for name in node.input if name}
        if operator.endswith("DequantizeLinear"):
            inputs = [read.get(name) for name in node.input]
            return [fold_dequantize(self._call(node, operator, node.output[0], inputs))]
        inner, outer = ([helper.make_value_info(n, TypeProto()) for n in names if n] for names in (read, node.output))
        graph = helper.make_graph([node], "fold", inner, outer)
        model = helper.make_model(graph, opset_imports=self.model.opset_import)
        check_folded(node, read, self.model.opset_import)
        try:
            results = ReferenceEvaluator(model).run(None, {name: known.data for name, known in read.items()})
        except Exception as problem:  # the reference implementation raises whatever its numpy code raises
            raise UnsupportedError(f"it cannot be evaluated on its constants: {first_line(problem)}") from problem
        named = zip((o for o in node.output if o), results, strict=True)
        known = {name: Known(_frozen(np.asarray(x)), name) for name, x in named}
        return [known.get(name) for name in node.output]


def _frozen(data: Array) -> Array:
    """``data`` as its reader wants it, floats as float32; nobody writes to it any more."""
    data = operands.as_floats(data)
    data.setflags(write=False)
    return data


def _reads(node: NodeProto) -> list[str]:
    """The names that a node and the graphs in it read; a name that such a graph defines itself is among them."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            names += [name for part in inner.node for name in _reads(part)]
            names += [output.name for output in inner.output]
    return names


def _needed(graph: GraphProto) -> list[NodeProto]:
    """The nodes that the outputs of a graph depend on, in order."""
    needed = {output.name for output in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(_reads(node))
    return kept[::-1]


def _keeps_floats(node: NodeProto) -> bool:
    """Whether a node that converts nothing, or converts to a type, gives floats."""
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    return all(attribute.i in floats for attribute in node.attribute if attribute.name == "to")
