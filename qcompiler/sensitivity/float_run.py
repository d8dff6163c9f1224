"""Runs a float graph with some tensors quantized, from the first node that this changes; what lies before is kept in float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch

from qcompiler.interpret import last_reads, run_float
from qcompiler.ir.graph import RANKS, Graph, Value
from qcompiler.ops.table import OPERATORS
from qcompiler.sensitivity.candidates import Change

CACHED_ELEMENTS: Final = 1 << 26  # of the values of one batch: 256 MiB
LARGEST_BATCH: Final = 64


def batch_size(graph: Graph, elements: int = CACHED_ELEMENTS) -> int:
    """How many samples' values have ``elements`` elements together; 1 to ``LARGEST_BATCH``."""
    each = sum(value.type.elements for value in graph.values.values())
    return min(max(elements // max(each, 1), 1), LARGEST_BATCH)


def compared_outputs(graph: Graph) -> tuple[str, ...]:
    """The values that say what the network answers: its outputs; instead of the best ones and of their indices, all."""
    found = []
    for name in graph.outputs:
        node = graph.producer.get(name)
        found.append(node.inputs[0] if node is not None and node.op in (*RANKS, "topk_values") else name)
    return tuple(name for name in dict.fromkeys(found) if name in graph.values)


def float_constants(graph: Graph) -> dict[str, torch.Tensor]:
    """The constants of ``graph`` as tensors of their own."""
    return {c.name: torch.from_numpy(c.data.copy()) for c in graph.constants}


class FloatRun:
    """One batch: ``values`` holds every value in float, for as long as this lives."""

    def __init__(self, graph: Graph, inputs: Sequence[torch.Tensor], constants: Mapping[str, torch.Tensor]) -> None:
        self.graph, self.constants = graph, dict(constants)
        self.values: dict[str, torch.Tensor] = {}
        self._last = last_reads(graph)
        self._compared = compared_outputs(graph)

        def observe(value: Value, tensor: torch.Tensor) -> None:
            self.values[value.name] = tensor

        with torch.no_grad():
            run_float(graph, inputs, observe, constants)

    def outputs(self, change: Change | None = None) -> list[torch.Tensor]:
        """The compared outputs, with what ``change`` quantizes; every value that has codes there is rounded when it is made."""
        changed: dict[str, torch.Tensor] = {}
        if change is None:
            return [self.values[name] for name in self._compared]
        for value in self.graph.inputs:
            if value.name in change.codes:
                changed[value.name] = change.codes[value.name].rounded(self.values[value.name])
        known = {**self.constants, **change.weights}
        with torch.no_grad():
            for index, node in enumerate(self.graph.nodes):
                name = node.output.name
                if any(i in changed or i in change.weights for i in node.inputs):
                    operands = [known[i] if i in known else changed[i] if i in changed else self.values[i] for i in node.inputs]
                    result = OPERATORS[node.op].run_float(node, operands)
                elif name in change.codes:
                    result = self.values[name]
                else:
                    continue
                changed[name] = change.codes[name].rounded(result) if name in change.codes else result
                for read in node.inputs:
                    if self._last[read] <= index and read not in self._compared:
                        changed.pop(read, None)
        return [changed[name] if name in changed else self.values[name] for name in self._compared]
