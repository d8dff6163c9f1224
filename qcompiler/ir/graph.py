"""The graph: immutable SSA over typed tensors, the same type through every stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Any, Final, Literal

import networkx
import numpy as np

from qcompiler.errors import InternalError
from qcompiler.ir.dtypes import F32, DType

BATCH: Final = "N"
WEIGHTED: Final = ("conv2d", "linear")
"""Operators with weights; in the integer stage their results are accumulators."""
MOVES: Final = (
    "amax",
    "amin",
    "max_pool2d",
    "pad",
    "reshape",
    "resize_linear",
    "slice",
    "take",
    "topk_values",
    "transpose",
)
"""Operators whose result has the codes of their first operand."""

RANKS: Final = ("argmax", "topk_indices")
"""Operators that give indices."""
Dim = int | Literal["N"]
Array = np.ndarray[Any, np.dtype[Any]]
Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str | int, ...]


class Stage(Enum):
    """How far a graph has come; each stage has its own table of legal operators and types."""

    FLOAT = "float"
    CALIBRATED = "calibrated"
    ALLOCATED = "allocated"
    INTEGER = "integer"


@dataclass(frozen=True)
class TensorType:
    """An element type and a shape; the first dimension may be the symbolic batch ``N``."""

    dtype: DType
    shape: tuple[Dim, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    def with_batch(self, n: int) -> tuple[int, ...]:
        """The shape with ``n`` for the symbolic batch."""
        return tuple(n if d == BATCH else d for d in self.shape)

    @property
    def elements(self) -> int:
        """Elements of one sample (of the whole tensor when there is no batch)."""
        return int(np.prod(self.with_batch(1), dtype=np.int64))


@dataclass(frozen=True)
class Value:
    """A tensor that is computed or fed in.

    ``range``: calibrated smallest and largest value to represent, ``range4``: the same if its codes have 4 bits; ``bits``:
    width of its codes, chosen by allocation; ``scale`` and ``zero``: in the integer stage the real value is
    ``(code - zero) * scale``.
    """

    name: str
    type: TensorType
    range: tuple[float, float] | None = None
    range4: tuple[float, float] | None = None
    bits: int | None = None
    scale: float | None = None
    zero: int | None = None


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor known at compile time; ``data`` is never written to.

    ``bits``: width of its codes, chosen by allocation. ``scale``: float64[channels], in the integer stage the real
    weight is ``code * scale[channel]`` along axis 0.
    """

    name: str
    type: TensorType
    data: Array
    bits: int | None = None
    scale: Array | None = None

    def __post_init__(self) -> None:
        if tuple(self.data.shape) != self.type.shape or self.data.dtype != self.type.dtype.container:
            raise ValueError(f"constant {self.name}: data is {self.data.dtype}{list(self.data.shape)}, its type says {self.type}")
        self.data.setflags(write=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Constant):
            return NotImplemented
        return self is other or (
            (self.name, self.type, self.bits) == (other.name, other.type, other.bits)
            and self.data.tobytes() == other.data.tobytes()
            and _same(self.scale, other.scale)
        )

    def __hash__(self) -> int:
        return hash((self.name, self.type, self.bits))


def float_constant(name: str, data: Array) -> Constant:
    """A float32 constant; the data is copied."""
    return Constant(name, TensorType(F32, tuple(data.shape)), np.array(data, dtype=np.float32, order="C"))


def _same(a: Array | None, b: Array | None) -> bool:
    return a is b if a is None or b is None else a.tobytes() == b.tobytes()


@dataclass(frozen=True)
class Node:
    """One operation. ``attributes`` are kept sorted; ``origin`` is the layer's name in the user's model."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[Value, ...]
    attributes: tuple[tuple[str, Attribute], ...] = ()
    origin: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", tuple(sorted(self.attributes)))

    def __getitem__(self, name: str) -> Any:
        return dict(self.attributes)[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute ``name``, or ``default``."""
        return dict(self.attributes).get(name, default)

    @property
    def output(self) -> Value:
        """The only output."""
        (value,) = self.outputs
        return value

    def with_attributes(self, **changes: Attribute | None) -> Node:
        """A copy with attributes set, or taken away where the value is None."""
        merged = {**dict(self.attributes), **changes}
        return replace(self, attributes=tuple((k, v) for k, v in merged.items() if v is not None))


@dataclass(frozen=True)
class Graph:
    """A model: inputs, constants, nodes in definition order, and the names of its outputs.

    InternalError where two of its values and constants have one name; passes take new names from ``ir.names``.
    """

    name: str
    stage: Stage
    inputs: tuple[Value, ...]
    constants: tuple[Constant, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        defined = [value.name for value in self.inputs]
        defined += [constant.name for constant in self.constants]
        defined += [value.name for node in self.nodes for value in node.outputs]
        if len(set(defined)) < len(defined):
            twice = "; ".join(f"%{name} is defined twice" for name, count in Counter(defined).items() if count > 1)
            raise InternalError(f"graph {self.name}: {twice}")

    @cached_property
    def values(self) -> Mapping[str, Value]:
        """Inputs and node outputs by name."""
        found = {v.name: v for v in self.inputs}
        found.update((v.name, v) for node in self.nodes for v in node.outputs)
        return found

    @cached_property
    def constant(self) -> Mapping[str, Constant]:
        """Constants by name."""
        return {c.name: c for c in self.constants}

    @cached_property
    def producer(self) -> Mapping[str, Node]:
        """The node that defines each computed value."""
        return {v.name: node for node in self.nodes for v in node.outputs}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each name, in definition order; a node that reads it twice appears once."""
        found: dict[str, list[Node]] = {name: [] for name in (*self.values, *self.constant)}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    def type_of(self, name: str) -> TensorType:
        """The type of a value or constant."""
        return self.values[name].type if name in self.values else self.constant[name].type

    def uses(self, name: str) -> int:
        """How many nodes read ``name``, plus one if it is an output of the graph."""
        return len(self.consumers[name]) + (name in self.outputs)

    def with_nodes(
        self, nodes: Iterable[Node], constants: Iterable[Constant] | None = None, outputs: Iterable[str] | None = None
    ) -> Graph:
        """A copy with other nodes; constants that nothing reads are dropped, the rest ordered by first use.

        InternalError where two different constants have one name.
        """
        nodes = tuple(nodes)
        known: dict[str, Constant] = {}
        for constant in self.constants if constants is None else constants:
            if known.setdefault(constant.name, constant) != constant:
                raise InternalError(f"graph {self.name}: two constants are called %{constant.name}")
        used = dict.fromkeys(name for node in nodes for name in node.inputs if name in known)
        return replace(
            self,
            nodes=nodes,
            constants=tuple(known[name] for name in used),
            outputs=self.outputs if outputs is None else tuple(outputs),
        )

    def to_networkx(self) -> networkx.DiGraph[str]:
        """Values and constants as vertices, an edge from each input of a node to each of its outputs."""
        graph: networkx.DiGraph[str] = networkx.DiGraph()
        graph.add_nodes_from((*self.values, *self.constant))
        graph.add_edges_from((i, o.name) for node in self.nodes for i in node.inputs for o in node.outputs)
        return graph


def rename_inputs(node: Node, renames: Mapping[str, str]) -> Node:
    """``node`` reading ``renames[name]`` wherever it read ``name``."""
    if not any(name in renames for name in node.inputs):
        return node
    return replace(node, inputs=tuple(renames.get(name, name) for name in node.inputs))
