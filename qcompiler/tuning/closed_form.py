"""Layer by layer, in order: weights rounded by GPTQ on the inputs that the rounded layers before give, biases made to fit.

Two runs go side by side over the samples, in float and rounded, as in bias correction; only the values that are still read are
kept, in few bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import torch

from qcompiler.interpret import last_reads
from qcompiler.ir.graph import WEIGHTED, Array, Graph, Node
from qcompiler.ops.table import OPERATORS
from qcompiler.passes.correct_bias import mean_difference
from qcompiler.progress import Progress
from qcompiler.tuning.gptq import measure, round_rows
from qcompiler.tuning.simulation import SimulatedGraph
from qcompiler.tuning.stored import BYTES, Stored

if TYPE_CHECKING:
    from torch import Tensor

CHUNK: Final = 8  # samples that one operator works on at once
Run = dict[str, Stored]


@torch.no_grad()
def round_in_order(simulated: SimulatedGraph, samples: list[Array], progress: Progress | None = None) -> None:
    """Set weights, scales and biases of ``simulated`` for ``samples``, one float32 array ``[S, ...]`` for each input."""
    graph = simulated.graph
    exact, rounded = entered(simulated, samples)
    last = last_reads(graph)
    for index, node in enumerate(graph.nodes):
        name = node.output.name
        if name in simulated.bias_of:
            _layer(simulated, node, exact, rounded)
            if progress:
                progress.advance("round", 1, len(simulated.bias_of))
        else:
            exact[name] = Stored.of(node_results(node, exact, simulated.fixed))
            rounded[name] = Stored.of(node_results(node, rounded, simulated.fixed), simulated.quantizer(name))
        for read in node.inputs:
            if last[read] <= index:
                exact.pop(read, None)
                rounded.pop(read, None)


def entered(simulated: SimulatedGraph, samples: list[Array]) -> tuple[Run, Run]:
    """The network's inputs in chunks, exact and rounded."""
    exact: Run = {}
    rounded: Run = {}
    for value, x in zip(simulated.graph.inputs, samples, strict=True):
        chunks = torch.split(torch.from_numpy(x), CHUNK)
        exact[value.name] = Stored(chunks)
        rounded[value.name] = Stored.of(chunks, simulated.quantizer(value.name))
    return exact, rounded


def node_results(node: Node, run: Run, fixed: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """What ``node`` gives, chunk by chunk."""
    for chunk in range(len(next(iter(run.values())))):
        operands = [run[name][chunk] if name in run else fixed[name] for name in node.inputs]
        yield OPERATORS[node.op].run_float(node, operands)


def _layer(simulated: SimulatedGraph, node: Node, exact: Run, rounded: Run) -> None:
    """Round the weights of a layer and run it both ways."""
    graph, read, name = simulated.graph, node.inputs[0], node.output.name
    quantizer, bias = simulated.weight(node), simulated.bias(node)
    plain, constant = node.with_attributes(clamp=None), torch.from_numpy(graph.constant[node.inputs[1]].data.copy())
    clamp = node.get("clamp")
    if not is_shared(graph, node):
        found, scale = round_rows(constant, measure(node, exact[read], rounded[read], constant.shape), quantizer.bits)
        quantizer.weight.copy_(found)
        quantizer.scale.copy_(scale.reshape(quantizer.scale.shape))

    def outputs(x: Stored, weight: Tensor) -> Iterator[Tensor]:
        return (OPERATORS[node.op].run_float(plain, [part, weight, bias]) for part in x)

    before, after = Stored.of(outputs(exact[read], constant)), Stored.of(outputs(rounded[read], quantizer()))
    shift = torch.from_numpy(mean_difference(before, after, clamp)).to(torch.float32)
    bias.add_(shift)

    def limited(y: Tensor) -> Tensor:
        return y if clamp is None else y.clamp_(*clamp)

    exact[name] = before if clamp is None else Stored.of(limited(y) for y in before)
    along = (-1, *[1] * (len(node.output.type.shape) - 2))
    rounded[name] = Stored.of((limited(y + shift.reshape(along)) for y in after), simulated.quantizer(name))


def is_shared(graph: Graph, node: Node) -> bool:
    """Whether other layers have the same weights: what suits one need not suit all."""
    return sum(other.op in WEIGHTED and other.inputs[1] == node.inputs[1] for other in graph.nodes) > 1


def samples_within(graph: Graph, live_bytes: int) -> int:
    """How many samples :func:`round_in_order` can work on with at most so many bytes of values alive at once."""
    last, live = last_reads(graph), {value.name: value.type.elements for value in graph.inputs}
    most = sum(live.values())
    for index, node in enumerate(graph.nodes):
        live[node.output.name] = node.output.type.elements
        most = max(most, sum(live.values()))
        for name in node.inputs:
            if last[name] <= index:
                live.pop(name, None)
    return max(1, live_bytes // (BYTES * most))
