"""Collects the inputs, constants and nodes of a graph while a model is walked, and everything that stands in its way.

An unsupported operator does not end the walk: its result is :data:`UNKNOWN`, what depends on it is unknown as well, and
:meth:`GraphBuilder.finish` reports all of them at once.

Codes of this module:
    IMPORT001: operators that are not supported, all of the model's, each with the user's layer name and the reason.
    IMPORT005: layers that tie the model to one batch size, or outputs that do not have the batch in front.
    IMPORT009: an input without elements, or larger than anything that is compiled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Final, Literal

import numpy as np

from qcompiler.errors import CompileError
from qcompiler.ir.dtypes import F32, I32
from qcompiler.ir.graph import BATCH, Array, Attribute, Constant, Dim, Graph, Node, Stage, TensorType, Value
from qcompiler.ir.names import Names
from qcompiler.ops.operator import TypeRuleError
from qcompiler.ops.table import OPERATORS

SUPPORTED: Final = (
    "convolutions (1-d to 3-d, transposed), linear, matmul, embedding, batch_norm, activations and other functions, "
    "add, sub, mul, min, max, pooling, sums, means and extremes over axes, argmax, topk, concat, split, slice, gather, pad, "
    "transpose, reshape, depth-to-space, nearest and linear resizing, local response norm, dropout, and a softmax at the end"
)

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
    """The result of an operator that is not supported."""


UNKNOWN: Final = Unknown()


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
    """The operand of a softmax that only the model's outputs read."""

    value: Value
    function: Literal["softmax", "log_softmax"]
    axis: int
    origin: str


@dataclass(frozen=True)
class ImportedModel:
    """A float graph and what its user should know of the import.

    ``notes`` are sentences for the report. ``final_activations`` names the outputs whose softmax was left out. ``ranges``: the
    smallest and largest number that a value of the graph can have, by its name, where the model says it (a quantized model does).
    """

    graph: Graph
    notes: tuple[str, ...] = ()
    final_activations: tuple[FinalActivation, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


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
        self.ranges: dict[str, tuple[float, float]] = {}
        self.integer_inputs: set[str] = set()
        self.index_values: set[str] = set()
        self._inputs: list[Value] = []
        self._nodes: list[Node] = []
        self._producers: dict[str, Node] = {}
        self._constants: dict[int, tuple[Known, Constant]] = {}
        self._same_name: dict[str, list[Constant]] = {}
        self._names = Names()
        self._origins: dict[str, int] = {}
        self._unsupported: list[str] = []
        self._fixed: list[str] = []

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

    def value(self, name: str) -> Value:
        """The input or computed value of this name."""
        if name in self._producers:
            return self._producers[name].output
        return next(value for value in self._inputs if value.name == name)

    def constant(self, known: Known) -> Constant:
        """The constant for ``known``, the same one for equal data of the same name; the data is copied."""
        if id(known) not in self._constants:
            dtype = I32 if known.index else F32
            data = np.array(known.data, dtype=dtype.container, order="C")
            same = self._same_name.setdefault(known.name, [])
            constant = next((c for c in same if c.type == TensorType(dtype, data.shape) and np.array_equal(c.data, data)), None)
            if constant is None:
                constant = Constant(self.unique_name(known.name), TensorType(dtype, data.shape), data)
                same.append(constant)
            self._constants[id(known)] = (known, constant)
        return self._constants[id(known)][1]

    def find_constant(self, name: str) -> Constant | None:
        """The constant of this name, if there is one."""
        return next((constant for _, constant in self._constants.values() if constant.name == name), None)

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
        return value

    def reject(self, where: str, operator: str, why: str = "not supported") -> Unknown:
        """Remember an unsupported operator."""
        self._unsupported.append(f"{where} ({operator}): {why}")
        return UNKNOWN

    def reject_batch(self, where: str, operator: str, why: str) -> Unknown:
        """Remember a layer that works for one batch size only."""
        self._fixed.append(f"{where} ({operator}): {why}")
        return UNKNOWN

    def check(self) -> None:
        """Raise IMPORT001 or IMPORT005 if anything was rejected."""
        if self._unsupported:
            lines = list(dict.fromkeys(self._unsupported))
            count = "1 operator is" if len(lines) == 1 else f"{len(lines)} operators are"
            raise CompileError(
                "IMPORT001",
                self.name,
                "\n".join((f"{count} not supported:", *lines)),
                f"replace them, or cut the model before them; supported are {SUPPORTED}",
            )
        if self._fixed:
            raise CompileError(
                "IMPORT005",
                self.name,
                "\n".join(("the batch cannot be made symbolic:", *dict.fromkeys(self._fixed))),
                "keep the batch as the first dimension and write it as -1 or x.size(0) in reshapes",
            )

    def finish(self, results: Sequence[Value | Known | Unknown | Ending | Merged]) -> ImportedModel:
        """The graph that returns ``results``, without what they do not need; IMPORT001 or IMPORT005 as found on the way."""
        self.check()
        if not results:
            raise CompileError("IMPORT007", self.name, "the model has no outputs", "let it return at least one tensor")
        outputs: list[str] = []
        endings: list[FinalActivation] = []
        for index, result in enumerate(results):
            if isinstance(result, Ending):
                endings.append(FinalActivation(index, result.function, result.axis, result.origin))
                self.notes.append(
                    f"the {result.function} {result.origin} at the end is not compiled: output {index} has its operand, "
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
        constants = tuple({constant.name: constant for _, constant in self._constants.values()}.values())
        graph = Graph(sanitize(self.name), Stage.FLOAT, tuple(self._inputs), constants, (), tuple(outputs))
        graph = graph.with_nodes(self._live(outputs))
        ranges = {name: limits for name, limits in self.ranges.items() if name in graph.values}
        return ImportedModel(graph, tuple(self.notes), tuple(endings), ranges)

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
    inside the layer, which has no name of its own; ``final``: only the model's outputs read the result.
    """

    builder: GraphBuilder
    where: str
    operator: str
    name: str
    call: str = ""
    final: bool = False

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
