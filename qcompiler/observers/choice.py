"""Which observer serves which tensor.

A wish is an observer's name for every tensor ("mse", "percentile:99.9"), or names by kind of tensor ("input", "activation",
"output") and by patterns over layer names: ``{"input": "minmax", "activation": "mse", "head.*": "entropy"}``. Kinds that are
not named keep their default. A pattern beats a kind, and a later pattern an earlier one.

Errors: CALIB007 a wish that cannot be understood, CALIB008 a pattern that names no layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from qcompiler.errors import CompileError
from qcompiler.ir.graph import Graph
from qcompiler.observers.entropy import EntropyObserver
from qcompiler.observers.extremes import MinMaxObserver, MovingAverageObserver
from qcompiler.observers.mse import MseObserver
from qcompiler.observers.observer import Observer
from qcompiler.observers.percentile import PercentileObserver

ObserverWish = str | Mapping[str, str] | None

OBSERVERS: Final[dict[str, Callable[[], Observer]]] = {
    "minmax": MinMaxObserver,
    "mse": MseObserver,
    "entropy": EntropyObserver,
}


@dataclass(frozen=True)
class Parameter:
    """An observer that takes a number after a colon: its default, and the limits, of which the lower one is excluded."""

    make: Callable[[float], Observer]
    default: float
    above: float
    most: float


PARAMETRIC: Final = {
    "moving-average": Parameter(MovingAverageObserver, 0.05, 0.0, 1.0),
    "percentile": Parameter(PercentileObserver, 99.99, 50.0, 100.0),
}

NAMES: Final = (*OBSERVERS, *PARAMETRIC)

DEFAULTS: Final = {"input": "minmax", "activation": "mse", "output": "mse"}
"""Inputs keep their extremes: they are data, not statistics, and clipping them loses more than it gains."""


def make_observer(wish: object) -> Observer:
    """The observer called ``wish``: a name of ``NAMES``, "moving-average:CONSTANT" or "percentile:PERCENTILE"."""
    if not isinstance(wish, str):
        raise _error(f"an observer is {wish!r}", "name it by a string")
    name, colon, text = wish.partition(":")
    if name not in NAMES:
        raise _error(f"there is no observer {name!r}", f"choose one of {', '.join(NAMES)}")
    if name in OBSERVERS:
        if colon:
            raise _error(f"observer {name!r} takes no parameter, but there is {text!r}", f"write {name!r}")
        return OBSERVERS[name]()
    parameter = PARAMETRIC[name]
    try:
        number = float(text) if colon else parameter.default
    except ValueError:
        number = math.nan
    if not parameter.above < number <= parameter.most:
        limits = f"above {parameter.above:g} and at most {parameter.most:g}"
        raise _error(f"the parameter of {wish!r} is no number {limits}", f"write for example '{name}:{parameter.default:g}'")
    return parameter.make(number)


def _error(problem: str, remedy: str) -> CompileError:
    return CompileError("CALIB007", "observer", problem, remedy)


@dataclass(frozen=True)
class ObserverChoice:
    """``kinds``: observers of inputs, activations and outputs; ``patterns``: of layers by name, later ones first."""

    kinds: Mapping[str, str]
    patterns: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, wish: ObserverWish) -> ObserverChoice:
        """What a user's wish says, with every name checked; CALIB007 where it cannot be understood."""
        if wish is None:
            return cls(DEFAULTS)
        if isinstance(wish, Mapping):
            for name in wish.values():
                make_observer(name)
            kinds = {kind: wish.get(kind, default) for kind, default in DEFAULTS.items()}
            patterns = [(pattern, name) for pattern, name in wish.items() if pattern not in DEFAULTS]
            return cls(kinds, tuple(reversed(patterns)))
        make_observer(wish)
        return cls(dict.fromkeys(DEFAULTS, wish))

    def observers(self, graph: Graph) -> dict[str, Observer]:
        """One observer for every input and computed value of ``graph``; CALIB008 where a pattern names none."""
        names: dict[str, tuple[str, ...]] = {value.name: (value.name,) for value in graph.inputs}
        names.update((node.output.name, (node.origin, node.output.name)) for node in graph.nodes)
        for pattern, _ in self.patterns:
            if not any(_matches(pattern, known) for known in names.values()):
                remedy = f"name a kind ({', '.join(DEFAULTS)}) or one of the layers: {', '.join(_layers(graph))}"
                raise CompileError("CALIB008", "observer", f"the pattern {pattern!r} names no layer", remedy)
        return {name: make_observer(self._wish(graph, name, known)) for name, known in names.items()}

    def _wish(self, graph: Graph, name: str, known: tuple[str, ...]) -> str:
        for pattern, wish in self.patterns:
            if _matches(pattern, known):
                return wish
        return self.kinds["output" if name in graph.outputs else "input" if name not in graph.producer else "activation"]


def _matches(pattern: str, names: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _layers(graph: Graph) -> list[str]:
    return list(dict.fromkeys(node.origin or node.output.name for node in graph.nodes))
