"""Collects the inputs, constants and nodes of a graph while a model is walked, and everything that stands in its way.

An unsupported operator does not end the walk: a value of the shape that its result has stands in for it, so that what reads it
is looked at as well, and :meth:`GraphBuilder.finish` reports all that is in the way at once. Where the shape is not known the
result is :data:`UNKNOWN`, and so is what depends on it.

Codes of this module:
    IMPORT009: an input without elements, or larger than anything that is compiled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

import numpy as np

from qcompiler.errors import CompileError
from qcompiler.importers.constant_data import owned_data
from qcompiler.importers.rejections import Rejections
from qcompiler.ir.dtypes import F32, I32
from qcompiler.ir.graph import BATCH, Array, Attribute, Constant, Dim, Graph, Node, Stage, TensorType, Value
from qcompiler.ir.names import Names
from qcompiler.ops.operator import TypeRuleError
from qcompiler.ops.table import OPERATORS

LAST_STEP: Final = "supported only as the model's last step, or before argmax or topk over the same axis, not the batch"
"""Of a softmax."""

LARGEST: Final = 1 << 26
"""Elements of one sample of a tensor: 256 MiB as floats. More is a mistake of the model, and no reason to ask for the memory."""


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor known at compile time, with the name it has in the user's model; ``index``: its numbers stay int32."""

    data: Array
    name: str
    index: bool = False


@dataclass(frozen=True, eq=False)
class Repeated(Known):
    """The same constant for every sample of the batch: ``data`` is ``[1, ...]``."""


class Unknown:
    """The result of an operator that is not supported, of a shape that is not known."""


UNKNOWN: Final = Unknown()


@dataclass(frozen=True)
class UnknownEnding(Unknown):
    """The result of a softmax of such an operand; ``layer`` is rejected if anything reads its numbers."""

    layer: Layer


@dataclass(frozen=True)
class Missing:
    """A result that an operator does not give; ``layer`` is rejected, for the reason ``why``, if anything reads it."""

    layer: Layer
    why: str


@dataclass(frozen=True)
class Merged:
    """``value`` with the first ``axes`` axes joined to one, the batch among them.

    It can be reshaped back, or multiplied by a matrix first: both know the batch again. ``why`` is for everything else.
    """

    value: Value
    axes: int
    why: str


class UnsupportedError(Exception):
    """This use of an operator has no counterpart; the message says why."""


class OriginError(UnsupportedError):
    """This use has no counterpart because of how an operand was computed: ``origin``, or any of them where it is None.

    Behind a value that stands in nobody can tell.
    """

    def __init__(self, why: str, origin: Value | None = None) -> None:
        super().__init__(why)
        self.origin = origin


class FixedBatchError(Exception):
    """This use of an operator works for one batch size only; the message says why."""


def check_size(sizes: Sequence[int], what: str = "its result") -> None:
    """UnsupportedError unless a tensor of these ``sizes`` has elements, and not more than ``LARGEST``."""
    elements = 0 if any(d < 0 for d in sizes) else prod(sizes)
    if not 0 < elements <= LARGEST:
        count = f"{elements:,} elements, more than the {LARGEST:,} that are supported" if elements else "no elements"
        raise UnsupportedError(f"{what} {dims(sizes)} has {count}")


@dataclass(frozen=True)
class FinalActivation:
    """A softmax that ends the model. The graph ends before it; whoever returns float outputs applies it.

    ``output`` is the index of the graph's output; ``axis`` counts the batch as 0. The order of the classes, and so the
    argmax, is the same with and without it.
    """

    output: int
    function: Literal["softmax", "log_softmax"]
    axis: int
    origin: str


@dataclass(frozen=True)
class Ending:
    """A softmax by its operand: it may end the model, or stand before what only asks for the order of the elements."""

    value: Value
    function: Literal["softmax", "log_softmax"]
    axis: int
    layer: Layer


@dataclass(frozen=True)
class ImportedModel:
    """A float graph and what its user should know of the import.

    ``notes`` are sentences for the report. ``final_activations`` names the outputs whose softmax was left out.
    """

    graph: Graph
    notes: tuple[str, ...] = ()
    final_activations: tuple[FinalActivation, ...] = ()


def sanitize(name: str) -> str:
    """``name`` in the characters of a value's name; slashes and colons become dots."""
    clean = re.sub(r"[^A-Za-z0-9_.$-]", "_", re.sub(r"[/:]+", ".", name)).strip(".")
    return clean or "value"


def _check_padded(sizes: Sequence[int], padding: Sequence[int]) -> None:
    """UnsupportedError where a tensor with its padding is too large: strides, or what is cut off, can make the result small."""
    axes = len(padding) // 2
    grown = [d + before + after for d, before, after in zip(sizes[-axes:], padding[:axes], padding[axes:], strict=True)]
    check_size([*sizes[:-axes], *grown], "a sample with its padding")


class GraphBuilder:
    """The graph so far, and what is not supported."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes: list[str] = []
        self.batch: int | None = None  # the constant batch size that the model was written for, if it has one
        self.integer_inputs: set[str] = set()
        self.index_values: set[str] = set()
        self._inputs: list[Value] = []
        self._nodes: list[Node] = []
        self._producers: dict[str, Node] = {}
        self._readers: dict[str, list[Node]] = {}
        self._constants: dict[str, Constant] = {}
        self._constant_of: WeakKeyDictionary[Known, Constant] = WeakKeyDictionary()
        self._same_name: dict[str, list[Constant]] = {}
        self._names = Names()
        self._origins: dict[str, int] = {}
        self._rejections = Rejections(name)
        self._stand_ins: dict[str, Value] = {}
        self._uncertain: set[str] = set()  # values that stand in, and what is computed from them
        self._refused_readers: dict[str, Missing] = {}

    def unique_name(self, name: str) -> str:
        """A name like ``name`` that no value or constant has."""
        return self._names.fresh(sanitize(name))

    def unique_origin(self, path: str, operation: str) -> str:
        """``path (operation)``, numbered from the second on: a functional call has no name of its own."""
        key = f"{path} ({operation}"
        self._origins[key] = self._origins.get(key, 0) + 1
        return f"{key})" if self._origins[key] == 1 else f"{key} {self._origins[key]})"

    def input(self, name: str, sample_shape: Sequence[int], integer: bool = False) -> Value:
        """A float32 input ``[N, *sample_shape]``; ``integer``: its numbers are whole, they choose rows of tables."""
        value = Value(self.unique_name(name), TensorType(F32, (BATCH, *sample_shape)))
        try:
            check_size(sample_shape, "a sample of the input")
        except UnsupportedError as problem:
            raise CompileError(
                "IMPORT009", f"{self.name}, input {name}", str(problem), "export the model for smaller inputs"
            ) from None
        self._inputs.append(value)
        if integer:
            self.integer_inputs.add(value.name)
        return value

    def producer(self, value: Value) -> Node | None:
        """The node that computes ``value``; None for an input."""
        return self._producers.get(value.name)

    def readers(self, value: Value) -> list[Node]:
        """The nodes so far that read ``value``."""
        return self._readers.get(value.name, [])

    def value(self, name: str) -> Value:
        """The input or computed value of this name."""
        if name in self._producers:
            return self._producers[name].output
        if name in self._stand_ins:
            return self._stand_ins[name]
        return next(value for value in self._inputs if value.name == name)

    def constant(self, known: Known) -> Constant:
        """The constant for ``known``, the same one for equal data of the same name; data that others may write to is copied."""
        if known not in self._constant_of:
            dtype = I32 if known.index else F32
            data = owned_data(known.data, np.dtype(dtype.container))
            same = self._same_name.setdefault(known.name, [])
            constant = next((c for c in same if c.type == TensorType(dtype, data.shape) and np.array_equal(c.data, data)), None)
            if constant is None:
                constant = Constant(self.unique_name(known.name), TensorType(dtype, data.shape), data)
                same.append(constant)
                self._constants[constant.name] = constant
            self._constant_of[known] = constant
        return self._constant_of[known]

    def find_constant(self, name: str) -> Constant | None:
        """The constant of this name, if there is one."""
        return self._constants.get(name)

    def node(
        self, op: str, inputs: Sequence[Value | Known], attributes: Mapping[str, Attribute], origin: str, name: str
    ) -> Value:
        """Append a node; UnsupportedError where the operands do not fit, FixedBatchError where the batch leaves the front."""
        operands = [self.constant(x) if isinstance(x, Known) else x for x in inputs]
        draft = Node(op, tuple(x.name for x in operands), (Value("", TensorType(F32, ())),), tuple(attributes.items()), origin)
        try:
            result = OPERATORS[op].infer(draft, operands)
        except TypeRuleError as problem:
            raise UnsupportedError(str(problem)) from None
        if not result.shape or result.shape[0] != BATCH or BATCH in result.shape[1:]:
            raise FixedBatchError(f"its result {result} does not have the batch in front")
        check_size(result.with_batch(1)[1:], "a sample of its result")
        if "padding" in attributes:
            padded = result if op.startswith("conv_transpose") else operands[0].type
            _check_padded(padded.with_batch(1)[1:], draft["padding"])
        value = Value(self.unique_name(name), result)
        node = self._producers[value.name] = replace(draft, outputs=(value,))
        self._nodes.append(node)
        if not self._uncertain.isdisjoint(node.inputs):
            self._uncertain.add(value.name)
        for read in node.inputs:
            self._readers.setdefault(read, []).append(node)
        return value

    def reject(self, where: str, operator: str, why: str = "not supported") -> Unknown:
        """Remember an unsupported operator."""
        self._rejections.add(where, operator, why)
        return UNKNOWN

    def reject_batch(self, where: str, operator: str, why: str) -> Unknown:
        """Remember a layer that works for one batch size only."""
        self._rejections.add_batch(where, operator, why)
        return UNKNOWN

    def refuse(
        self, problem: UnsupportedError | FixedBatchError, where: str, operator: str, inputs: Iterable[object] = ()
    ) -> Unknown:
        """Remember what an emitter raised for ``inputs``."""
        if isinstance(problem, FixedBatchError):
            return self.reject_batch(where, operator, str(problem))
        if isinstance(problem, OriginError) and self.is_uncertain([problem.origin] if problem.origin else inputs):
            return UNKNOWN
        return self.reject(where, operator, str(problem))

    def is_uncertain(self, inputs: Iterable[object]) -> bool:
        """Whether any of ``inputs`` stands in for what is not computed, or comes from such a value."""
        return any(isinstance(x, Value) and x.name in self._uncertain for x in inputs)

    def refuse_readers(self, value: Value, layer: Layer, why: str) -> None:
        """Reject ``layer`` if anything still reads its ``value`` when the model is walked."""
        self._refused_readers[value.name] = Missing(layer, why)

    def read(self, x: Any) -> Any:
        """``x`` for an operator that needs its numbers: a result that its layer does not give rejects the layer."""
        if isinstance(x, Missing):
            return self.reject(x.layer.where, x.layer.operator, x.why)
        if isinstance(x, UnknownEnding):
            return self.reject(x.layer.where, x.layer.operator, LAST_STEP)
        if isinstance(x, Ending):
            self.reject(x.layer.where, x.layer.operator, LAST_STEP)
            return self.stand_in(x.value.type.shape)
        return x

    def stand_in(self, shape: Sequence[Dim | str | None]) -> Value | Unknown:
        """A float32 value that nothing computes, of a shape with the batch in front; UNKNOWN where it is no such shape."""
        sizes = [d for d in shape if isinstance(d, int)]
        if not shape or shape[0] != BATCH or len(sizes) != len(shape) - 1 or not 0 < prod(sizes) <= LARGEST:
            return UNKNOWN
        value = Value(self.unique_name("unknown"), TensorType(F32, (BATCH, *sizes)))
        self._stand_ins[value.name] = value
        self._uncertain.add(value.name)
        return value

    def check(self) -> None:
        """Raise IMPORT001 or IMPORT005 if anything was rejected."""
        self._rejections.check()

    def finish(self, results: Sequence[Value | Known | Unknown | Missing | Ending | Merged]) -> ImportedModel:
        """The graph that returns ``results``, without what they do not need; IMPORT001 or IMPORT005 as found on the way."""
        results = [self.read(x) if isinstance(x, Missing) else x for x in results]
        read = {name for node in self._nodes for name in node.inputs}
        read.update(x.name for x in results if isinstance(x, Value))
        for name, missing in self._refused_readers.items():
            if name in read:
                self.read(missing)
        self.check()
        if not results:
            raise CompileError("IMPORT007", self.name, "the model has no outputs", "let it return at least one tensor")
        outputs: list[str] = []
        endings: list[FinalActivation] = []
        for index, result in enumerate(results):
            if isinstance(result, Ending):
                origin = result.layer.origin
                endings.append(FinalActivation(index, result.function, result.axis, origin))
                self.notes.append(
                    f"the {result.function} {origin} at the end is not compiled: output {index} has its operand, "
                    "with the same argmax"
                )
                result = result.value
            if isinstance(result, Merged):
                self.reject_batch("the model's outputs", f"output {index}", result.why)
                self.check()
            if not isinstance(result, Value):
                self.reject("the model's outputs", f"output {index}", "does not depend on the input")
                self.check()
            assert isinstance(result, Value)
            if result.name in outputs or result in self._inputs:
                result = self.node("identity", [result], {}, "", f"output{index}")
            outputs.append(result.name)
        constants = tuple(self._constants.values())
        graph = Graph(sanitize(self.name), Stage.FLOAT, tuple(self._inputs), constants, (), tuple(outputs))
        graph = graph.with_nodes(self._live(outputs))
        return ImportedModel(graph, tuple(self.notes), tuple(endings))

    def _live(self, outputs: Sequence[str]) -> list[Node]:
        """The nodes that the outputs need, in order."""
        needed = set(outputs)
        kept: list[Node] = []
        for node in reversed(self._nodes):
            if node.output.name in needed:
                kept.append(node)
                needed.update(node.inputs)
        return kept[::-1]


@dataclass(frozen=True)
class Layer:
    """The place of one operator of the user's model.

    ``where`` is the layer's path and ``operator`` the framework's name for what it does; ``call`` names a functional call
    inside the layer, which has no name of its own.
    """

    builder: GraphBuilder
    where: str
    operator: str
    name: str
    call: str = ""

    @cached_property
    def origin(self) -> str:
        """The layer's name in the user's model."""
        return self.builder.unique_origin(self.where, self.call) if self.call else self.where

    def emit(self, op: str, inputs: Sequence[Value | Known], suffix: str = "", **attributes: Attribute) -> Value:
        """Append a node of this layer; ``suffix`` tells its value from the layer's last one."""
        return self.builder.node(op, inputs, attributes, self.origin, self.name + suffix)

    def known(self, data: Array, what: str) -> Known:
        """A constant that this layer brings along, named ``<layer>.<what>``."""
        return Known(data, f"{self.name}.{what}")


def dims(shape: Sequence[Dim]) -> str:
    """``[N,3,32,32]``."""
    return f"[{','.join(map(str, shape))}]"
