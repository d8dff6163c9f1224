"""How far the network's answer moves when a tensor is really quantized and everything else stays float: measured, not estimated.

Three distances, means over the samples, each summed over the outputs:
- ``kl``: the divergence of the classes' probabilities from the float network's, in nats; along axis 1 of ``[N, C, ...]``, with
  the mean over whatever follows. It is the expected increase of the cross entropy where the float network's probabilities are
  right. Needs outputs of C > 1 classes.
- ``mse``: the mean squared difference, in squared units of the output.
- ``sqnr``: the same over the mean square of the output over all samples: the noise-to-signal ratio, 10^(-SQNR in dB / 10). Of
  several outputs each counts alike, whatever its unit.

A batch runs in float once, and its values are kept; each choice then runs again only what depends on its tensor. All three
distances are taken in one go.

Errors: SENS005 an output has no classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from qcompiler.errors import CompileError
from qcompiler.ir.graph import BATCH, Graph, TensorType
from qcompiler.sensitivity.cache import Measured
from qcompiler.sensitivity.candidates import Candidates, Change
from qcompiler.sensitivity.float_run import FloatRun, batch_size, compared_outputs, float_constants
from qcompiler.sensitivity.problem import STEP, Problem
from qcompiler.sensitivity.scores import Choice, Scores, Sums, sum_and_squares

METRICS: Final = ("kl", "mse", "sqnr")
TINY: Final = 1e-30  # the least power of a signal, so that a constant zero divides nothing


def distance_scores(problem: Problem, metric: str, measured: Measured) -> Scores:
    """The scores of every choice by the distance ``metric``."""
    choices = list(problem.candidates.choices())
    found = measure_together(problem, metric, [(choice,) for choice in choices], measured)
    return Scores.of(zip(choices, found, strict=True))


def measure_together(problem: Problem, metric: str, wanted: Sequence[tuple[Choice, ...]], measured: Measured) -> list[Sums]:
    """The distance ``metric`` for each of ``wanted``: choices that are made together."""
    if metric == "kl":
        require_classes(problem.graph)
    column, constants = 2 * METRICS.index(metric), float_constants(problem.graph)
    powers = output_powers(problem, measured)
    found = [Sums() for _ in wanted]
    steps = len(wanted) * -(-len(problem) // batch_size(problem.graph))
    for start, inputs in problem.batches():
        run: FloatRun | None = None
        for together, sums in zip(wanted, found, strict=True):
            unit = f"{start} {' + '.join(f'{name} {bits}' for name, bits in together)}"
            numbers = measured.get(unit)
            if numbers is None:
                run = run or FloatRun(problem.graph, inputs, constants)
                outputs = run.outputs(joint_change(problem.candidates, together))
                distances = sample_distances(problem.graph, run.outputs(), outputs, powers)
                numbers = measured.put(unit, [number for one in distances for number in sum_and_squares(one)])
            sums.add(numbers[column], numbers[column + 1], len(inputs[0]))
            problem.progress.advance(STEP, 1, steps)
    return found


def joint_change(candidates: Candidates, together: Sequence[Choice]) -> Change:
    """All of the choices at once."""
    change = Change()
    for name, bits in together:
        change |= candidates.change(name, bits)
    return change


def output_powers(problem: Problem, measured: Measured) -> list[float]:
    """The mean square of each compared output over all samples."""
    outputs, constants = compared_outputs(problem.graph), float_constants(problem.graph)
    totals = [0.0] * len(outputs)
    for start, inputs in problem.batches():
        numbers = measured.get(f"{start}")
        if numbers is None:
            run = FloatRun(problem.graph, inputs, constants)
            numbers = measured.put(f"{start}", [float(_by_sample(y.to(torch.float64).square()).sum()) for y in run.outputs()])
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
    return [max(total / len(problem), TINY) for total in totals]


def sample_distances(
    graph: Graph, exact: Sequence[torch.Tensor], changed: Sequence[torch.Tensor], powers: Sequence[float]
) -> list[torch.Tensor]:
    """Float64[n] for each of ``METRICS``: the distance of each sample's ``changed`` outputs from the ``exact`` ones."""
    types = [graph.values[name].type for name in compared_outputs(graph)]
    kl, mse, sqnr = (torch.zeros(len(exact[0]), dtype=torch.float64) for _ in METRICS)
    for type_, power, a, b in zip(types, powers, exact, changed, strict=True):
        a, b = a.to(torch.float64), b.to(torch.float64)
        squares = _by_sample((a - b).square())
        mse, sqnr = mse + squares, sqnr + squares / power
        if has_classes(type_):
            expected, found = a.log_softmax(1), b.log_softmax(1)
            kl = kl + _by_sample((expected.exp() * (expected - found)).sum(1))
    return [kl, mse, sqnr]


def _by_sample(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(len(x), -1).mean(1)


def has_classes(type_: TensorType) -> bool:
    """Whether axis 1 is one of classes."""
    return len(type_.shape) >= 2 and type_.shape[0] == BATCH and type_.shape[1] != 1


def require_classes(graph: Graph) -> None:
    """SENS005 unless the outputs have classes."""
    for name in compared_outputs(graph):
        if not has_classes(graph.values[name].type):
            problem = f"output {name} is {graph.values[name].type}: it has no classes, so no probabilities to compare"
            raise CompileError("SENS005", "sensitivity", problem, "choose the metric 'mse' or 'sqnr'")
