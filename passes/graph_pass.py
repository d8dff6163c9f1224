"""What a pass is, and the runner that verifies the graph before and after each one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from qcompiler.errors import InternalError
from qcompiler.ir.graph import Graph, Stage
from qcompiler.ir.verify import verify
from qcompiler.ops.table import OPERATORS


class Pass(Protocol):
    """A function from graph to graph with a name, the stage it requires and the stage it gives."""

    @property
    def name(self) -> str:
        """The pass's name in dumps."""

    @property
    def requires(self) -> Stage:
        """The stage of the graph it takes."""

    @property
    def gives(self) -> Stage:
        """The stage of the graph it returns."""

    def __call__(self, graph: Graph) -> Graph:
        """The new graph; equal to ``graph`` when there is nothing to do."""


def run_passes(graph: Graph, passes: Sequence[Pass], after: Callable[[str, Graph], None] | None = None) -> Graph:
    """Run ``passes`` in order, verifying before the first and after each; ``after(name, graph)`` sees every result."""
    verify(graph, OPERATORS)
    for step in passes:
        if graph.stage is not step.requires:
            raise InternalError(f"pass {step.name} requires stage {step.requires.value}, the graph is {graph.stage.value}")
        graph = step(graph)
        if graph.stage is not step.gives:
            raise InternalError(f"pass {step.name} promises stage {step.gives.value} and gave {graph.stage.value}")
        verify(graph, OPERATORS)
        if after:
            after(step.name, graph)
    return graph
