"""Where the names of new values and constants come from: none is given twice, and none that something else has.

A pass that only makes values takes :class:`Names`; one that makes constants takes :class:`Constants`, which are the graph's
constants while they change:

    constants = Constants(graph)
    constants.release(node)                              # what only this node read is gone
    weight = constants.add("y.weight", data)             # "y.weight", or "y.weight_1" where that is taken
    graph.with_nodes(nodes, constants.values())

Names depend on the graph and on the order of calls alone, so that passes that run again give the same ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from typing_extensions import override

from qcompiler.errors import InternalError
from qcompiler.ir.dtypes import F32, DType
from qcompiler.ir.graph import Array, Constant, Graph, Node, TensorType


class Names:
    """Gives names away that are not ``taken``."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    @classmethod
    def of(cls, graph: Graph) -> Names:
        """Names that no value or constant of ``graph`` has."""
        return cls((*graph.values, *graph.constant))

    def fresh(self, stem: str) -> str:
        """``stem`` if it is free, else ``stem_1``, ``stem_2``, ...; it is taken from now on."""
        name, count = stem, 0
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        return name

    def release(self, name: str) -> None:
        """``name`` may be given away again."""
        self._taken.remove(name)


class Constants(Mapping[str, Constant]):
    """The constants of ``graph``, without those that are released and with those that are added, by name.

    A name is free again when the last of the graph's nodes that read it has released it; what was added has one reader.
    """

    def __init__(self, graph: Graph) -> None:
        self._names = Names.of(graph)
        self._known = dict(graph.constant)
        self._readers = {name: {n.output.name for n in graph.consumers[name]} for name in self._known}

    @override
    def __getitem__(self, name: str) -> Constant:
        return self._known[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    @override
    def __len__(self) -> int:
        return len(self._known)

    def fresh(self, stem: str) -> str:
        """A name for a new value."""
        return self._names.fresh(stem)

    def add(self, stem: str, data: Array, dtype: DType = F32, scale: Array | None = None, bits: int | None = None) -> Constant:
        """A constant of ``data``, which is copied, for one node to read; its name begins with ``stem``."""
        type_ = TensorType(dtype, tuple(data.shape))
        constant = Constant(self.fresh(stem), type_, np.array(data, dtype=dtype.container, order="C"), bits, scale)
        self._known[constant.name] = constant
        self._readers[constant.name] = set()
        return constant

    def change(self, name: str, data: Array) -> None:
        """Other numbers for a constant, of the same shape; InternalError where several nodes would get them."""
        if len(self._readers[name]) > 1:
            raise InternalError(f"the constant %{name} is changed for {len(self._readers[name])} nodes")
        old = self._known[name]
        self._known[name] = replace(old, data=np.array(data, dtype=old.type.dtype.container, order="C"))

    def release(self, node: Node, keeping: Collection[str] = ()) -> None:
        """``node`` is gone, or reads only ``keeping`` of its constants: those that no other node reads are no more."""
        for name in set(node.inputs).intersection(self._known).difference(keeping):
            self._readers[name].discard(node.output.name)
            if not self._readers[name]:
                del self._known[name], self._readers[name]
                self._names.release(name)
