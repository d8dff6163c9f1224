"""Says which parts of concatenations keep codes of their own, because those of the whole would cost them precision.

A part that is moved from elsewhere (a slice, a reshape, a pooling) takes its source along: with the whole's codes the source and
all that reads it would become as coarse as the whole. So codes are shared only where no value that is read for anything but the
concatenation loses more than ``MOST_LOST`` by it, as their calibrated ranges say: a range twice as wide means steps twice as
large, 6 dB. The others keep their codes and are rescaled into the whole's. What only leaves the network has 16 bits or more, to
which parts of 8 bits and network inputs are rescaled too: no part takes the rest down to its own precision.

Before, where the range of the whole is a hundred times that of %g:
    %a: f32[N,2] range=(0x0p+0, 0x1p+0) = slice(%g, ...)
    %b: f32[N,6] range=(0x0p+0, 0x1p+0) = slice(%g, ...)
    %c: f32[N,2] range=(0x0p+0, 0x1.9p+6) = mul(%a, %hundred)
    %y: f32[N,8] range=(0x0p+0, 0x1.9p+6) = concat(%c, %b, axis=1)
After:
    %y: f32[N,8] range=(0x0p+0, 0x1.9p+6) = concat(%c, %b, axis=1, own=(1))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from qcompiler.ir.graph import MOVES, Graph, Node, Stage
from qcompiler.passes.activation_classes import joinable_operands, leaving_values, moved_classes
from qcompiler.passes.activation_codes import affine_codes, joined_constants

MOST_LOST: Final = 0.5  # dB of a value's signal to quantization noise
BITS: Final = 8  # at which losses are judged; with fewer they are the same

Link = tuple[str, str]
"""A concatenation, by its value, and an operand that shares its codes."""


@dataclass(frozen=True)
class SeparateCodes:
    """Sets the attribute ``own`` of concatenations: the indices of operands that keep their codes; without it, none must."""

    name: str = "separate_codes"
    requires: Stage = Stage.CALIBRATED
    gives: Stage = Stage.CALIBRATED

    def __call__(self, graph: Graph) -> Graph:
        shared = _Sharing(graph).links()

        def marked(node: Node) -> Node:
            if node.op != "concat":
                return node
            apart = {name for name in joinable_operands(graph, node) if (node.output.name, name) not in shared}
            return node.with_attributes(own=tuple(i for i, name in enumerate(node.inputs) if name in apart) or None)

        return replace(graph, nodes=tuple(map(marked, graph.nodes)))


@dataclass(frozen=True)
class _Unit:
    """Values that share codes whatever concatenations do, and the range of what they are."""

    names: tuple[str, ...]
    low: float
    high: float

    @property
    def step(self) -> float:
        return affine_codes(self.low, self.high, BITS).scale


@dataclass
class _Sharing:
    """Units grow together, in the graph's order, as long as none of them loses too much."""

    graph: Graph
    leaving: frozenset[str] = field(init=False)
    spans: dict[str, tuple[float, float]] = field(init=False)
    units: list[_Unit] = field(init=False)
    of: dict[str, int] = field(init=False)
    groups: dict[int, frozenset[int]] = field(init=False)  # units by index -> those that share codes with them

    def __post_init__(self) -> None:
        self.leaving = leaving_values(self.graph)
        self.spans = spans(self.graph)
        self.units = [self._unit(names) for names in moved_classes(self.graph)]
        self.of = {name: index for index, unit in enumerate(self.units) for name in unit.names}
        self.groups = {index: frozenset((index,)) for index in range(len(self.units))}

    def links(self) -> set[Link]:
        """Every concatenation with each operand that shares its codes.

        A unit that several concatenations read shares with all of them, or with those that do not harm it as the others' source.
        """
        accepted: set[Link] = set()
        for index, unit in enumerate(self.units):
            wanted = [
                (node.output.name, name)
                for name in unit.names
                for node in self.graph.consumers[name]
                if node.op == "concat" and name in joinable_operands(self.graph, node)
            ]
            trials = [wanted, *([link] for link in wanted if len(wanted) > 1)]
            for trial in trials:
                group = frozenset[int]().union(*(self.groups[i] for i in (index, *(self.of[whole] for whole, _ in trial))))
                if accepted.issuperset(trial) or not self._harmless(group, accepted.union(trial)):
                    continue
                accepted.update(trial)
                self.groups.update(dict.fromkeys(group, group))
        return accepted

    def _unit(self, names: Sequence[str]) -> _Unit:
        ranges = [self.spans[name] for name in names]
        return _Unit(tuple(names), min(low for low, _ in ranges), max(high for _, high in ranges))

    def _harmless(self, group: Iterable[int], links: set[Link]) -> bool:
        """Whether the units of ``group`` may share codes when ``links`` do."""
        units = [self.units[index] for index in group]
        step = affine_codes(min(unit.low for unit in units), max(unit.high for unit in units), BITS).scale
        if any(20 * math.log10(step / unit.step) > MOST_LOST and self._read(unit, links) for unit in units):
            return False
        names = {name for unit in units for name in unit.names}
        computed = names & self.graph.producer.keys()
        wide = any(self.graph.producer[name].op == "concat" for name in computed & self.leaving)
        return not wide or names == computed <= self.leaving

    def _read(self, unit: _Unit, links: set[Link]) -> bool:
        """Whether anything but moves and concatenations of the same codes reads the unit."""
        return any(
            name in self.graph.outputs
            or any(node.op not in MOVES and (node.output.name, name) not in links for node in self.graph.consumers[name])
            for name in unit.names
        )


def spans(graph: Graph) -> dict[str, tuple[float, float]]:
    """The range of every value, with those of all values that it holds as a whole: they are nothing foreign to it."""
    found: dict[str, tuple[float, float]] = {}
    for name, value in graph.values.items():
        assert value.range is not None
        ranges, node = [value.range, *joined_constants(graph, (name,))], graph.producer.get(name)
        if node is not None and node.op in ("concat", "reshape", "transpose"):
            ranges += [found[operand] for operand in node.inputs if operand in found]
        found[name] = min(low for low, _ in ranges), max(high for _, high in ranges)
    return found
