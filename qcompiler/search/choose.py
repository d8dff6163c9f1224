"""The driver above the pipeline: gathers what a search needs, and says what it chose.

It runs the very passes of the pipeline: the graph up to its ranges first, for what is estimated; then all of them again, once for
every candidate whose accuracy is to be measured, since channels are equalized for the bits of layers, and ranges follow.

Errors: SEARCH002 no samples, SEARCH003 labels that do not fit, BUDGET004 the activations need more memory than they may.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from qcompiler.allocate import pareto
from qcompiler.backend.lower import plan_steps
from qcompiler.calibrate import FirstSamples, batches
from qcompiler.cost.candidates import candidates
from qcompiler.cost.latency_costs import latency_costs
from qcompiler.cost.latency_table import LatencyTable
from qcompiler.cost.predict import fit_table
from qcompiler.cost.table_cache import measured_table
from qcompiler.cost.tile_cache import tiles_for
from qcompiler.errors import CompileError
from qcompiler.ir.graph import WEIGHTED, Array, Graph
from qcompiler.ops.quantizer import is_quantized
from qcompiler.pipeline import Settings, to_integer
from qcompiler.report import sqnr_db
from qcompiler.search.budget import Budget, amount
from qcompiler.search.evaluate import clearly_nearer, float_scores, integer_scores, sample_distances, top1_drop
from qcompiler.search.pareto import Curve, Point, check_sweep, evaluated
from qcompiler.search.problem import Latencies, Problem, formulate
from qcompiler.search.rivals import pinned, rivals, uniform_bits
from qcompiler.search.search import RESOURCES, Choice, Loss, chosen_bits, limits_of, search
from qcompiler.sensitivity.analyze import sensitivities
from qcompiler.sensitivity.table import SensitivityTable
from qcompiler.targets.target import Target
from qcompiler.tuning.closed_form import samples_within
from qcompiler.tuning.round_weights import LIVE_BYTES
from qcompiler.tuning.single_layers import Rounded, rounded_layers


def choose_bits(
    graph: Graph,
    calibrated: Graph,
    settings: Settings,
    budget: Budget,
    target: Target,
    input_layout: str,
    tune: str = "off",
) -> Choice:
    """The bits of ``graph`` within ``budget``; ``calibrated``: what it is with its ranges, for the fewest bits that it may get.

    ``tune``: which tilings the kernels have whose latencies are measured, see :func:`qcompiler.cost.tile_cache.tiles_for`.

    Raises CompileError SEARCH002 where there are no samples to judge by, BUDGET and ALLOC errors where nothing fits.
    """
    measured = budget.latency_ms is not None
    problem, table, run, labels = _prepared(graph, calibrated, settings, budget, target, input_layout, tune, measured)

    def loss_of(bits: Mapping[str, int]) -> Loss:
        scores = run.scores(bits)
        drop = None if budget.accuracy_drop is None else top1_drop(run.expected, scores, labels, graph.name)
        return Loss(drop, sqnr_db(run.expected, scores))

    choice = search(graph.name, problem, table, budget, loss_of)
    others = rivals(problem, budget, choice, graph.name)
    if not others:
        return choice
    ours = sample_distances(run.expected, run.scores(choice.bits))
    distances = [sample_distances(run.expected, run.scores(bits)) for bits in others]
    clear = [number for number, found in enumerate(distances) if clearly_nearer(ours, found)]
    if not clear:
        return choice
    nearest = others[min(clear, key=lambda number: distances[number].mean())]
    return replace(choice, bits=nearest, allocation=pinned(problem, budget, nearest, graph.name))


@dataclass(frozen=True)
class _Shipped:
    """Runs a graph that has no bits yet as it would ship with some."""

    graph: Graph
    settings: Settings
    inputs: list[Array]

    @cached_property
    def expected(self) -> Array:
        """The float graph's scores."""
        return float_scores(self.graph, self.inputs)

    def scores(self, bits: Mapping[str, int]) -> Array:
        """The integer graph's scores, as real numbers."""
        return integer_scores(to_integer(self.graph, replace(self.settings, assignment=bits)), self.inputs)


def sweep(
    graph: Graph,
    calibrated: Graph,
    settings: Settings,
    budget: Budget,
    target: Target,
    input_layout: str,
    by: str,
    points: int,
    tune: str = "off",
) -> Curve:
    """The curve of ``graph`` from the least ``by`` to the least sensitivity; the solver gives ``points`` at most.

    ``calibrated`` and ``tune``: as for :func:`choose_bits`.
    """
    check_sweep(by, points)
    problem, _, run, _ = _prepared(graph, calibrated, settings, budget, target, input_layout, tune, by == "latency")
    found = pareto(
        problem.variables,
        problem.unary,
        problem.pairs,
        limits_of(budget, problem),
        resource=RESOURCES[by],
        points=points,
        where=graph.name,
    )

    def point(bits: Mapping[str, int]) -> Point:
        if settings.progress:
            settings.progress.advance("points", 1)
        return evaluated(calibrated, problem, bits, run.expected, run.scores(bits))

    uniform = {f"w{w}": point(uniform_bits(problem, w)) for w in budget.weight_bits}
    return Curve.of(graph.name, by, [point(chosen_bits(allocation)) for allocation in found], uniform)


def _prepared(
    graph: Graph,
    calibrated: Graph,
    settings: Settings,
    budget: Budget,
    target: Target,
    input_layout: str,
    tune: str,
    measured: bool,
) -> tuple[Problem, SensitivityTable, _Shipped, Array | None]:
    """The problem and the table behind it, ``graph`` to run on the samples that bits are judged by, and their labels, if any."""
    _check_memory(calibrated, settings, budget, input_layout)
    samples = _samples(calibrated, settings)
    problem, table = _problem(calibrated, settings, budget, target, input_layout, tune, measured)
    inputs, labels = _evaluation(calibrated, budget, samples)
    return problem, table, _Shipped(graph, settings.again(), inputs), labels


def _samples(graph: Graph, settings: Settings) -> list[Array]:
    settings.samples.fill(graph, settings.calibration)
    if not settings.samples.inputs:
        problem = "bits are chosen by what they do to samples, and there are none"
        raise CompileError("SEARCH002", graph.name, problem, "pass calibration data, or say bits= instead of budget=")
    return settings.samples.inputs


def _check_memory(graph: Graph, settings: Settings, budget: Budget, input_layout: str) -> None:
    """BUDGET004 where the memory plan needs more than the budget has: no choice of bits changes it."""
    if budget.activation_memory is None:
        return
    plain = replace(settings, quality="fast", samples=FirstSamples(), calibration=None, progress=None)
    needed = plan_steps(to_integer(graph, plain), 1, input_layout).workspace_bytes
    most = amount("activation_memory", budget.activation_memory, needed)
    if most is not None and needed > most:
        text = f"the memory plan needs {needed:,} bytes for activations, more than {most:,}, whatever the bits of layers"
        raise CompileError("BUDGET004", graph.name, text, "allow more, or take a smaller model or input")


def _problem(
    graph: Graph, settings: Settings, budget: Budget, target: Target, input_layout: str, tune: str, measured: bool
) -> tuple[Problem, SensitivityTable]:
    """The problem, with latencies where they are ``measured`` or what is minimized, and the table behind it."""
    table = sensitivities(
        graph,
        [x[: budget.samples] for x in settings.samples.inputs],
        budget.metric,
        weight_bits=budget.weight_bits,
        activation_bits=budget.activation_bits if len(budget.activation_bits) > 1 else (),
        progress=settings.progress,
        rounded=_rounded(graph, settings, budget),
    )
    latencies = None
    if measured or budget.goal == "latency":
        latencies = _latencies(graph, settings, budget, target, input_layout, tune)
    bits = budget.weight_bits, budget.activation_bits
    return formulate(graph, table, *bits, target.bit_pairs, settings.pins, latencies), table


def _rounded(graph: Graph, settings: Settings, budget: Budget) -> Rounded | None:
    """Layers as they are rounded when they ship; None where they get their nearest codes."""
    fewer = sorted(bits for bits in set(budget.weight_bits) if bits < 8)
    if is_quantized(graph) or settings.quality == "fast" or not fewer:
        return None
    count = min(budget.samples, samples_within(graph, LIVE_BYTES))
    return rounded_layers(graph, settings.samples.first(count), fewer, settings.progress)


def _latencies(graph: Graph, settings: Settings, budget: Budget, target: Target, input_layout: str, tune: str) -> Latencies:
    """Nanoseconds of every layer and of all the rest, with what the fit adds."""
    found = candidates(graph, target, settings.output_bits, input_layout)
    found = found.tiled(tiles_for(found.distinct, target, tune, progress=settings.progress))
    if budget.latency_table is not None:
        table = LatencyTable.read(Path(budget.latency_table))
    else:
        table = measured_table(found, progress=settings.progress)
    costs, overhead = latency_costs(graph, target, table, found), fit_table(table)
    layers = {layer: {bits: overhead.ns(ns, 1) for bits, ns in by_bits.items()} for layer, by_bits in costs.layers.items()}
    calls = max(len(trace.calls) for trace in found.traces.values()) - len(found.layers)
    return Latencies(layers, overhead.ns(costs.constant, calls))


def _evaluation(graph: Graph, budget: Budget, samples: list[Array]) -> tuple[list[Array], Array | None]:
    """The samples that a drop is measured on, with their labels where there are some."""
    if budget.evaluation is None:
        return samples, None
    data, labels = budget.evaluation, None
    if isinstance(data, tuple | list) and len(data) == len(graph.inputs) + 1:
        data, labels = tuple(data[:-1]), np.asarray(data[-1])
    parts = [[tensor.numpy() for tensor in batch] for batch in batches(graph, data)]
    inputs = [np.concatenate([part[i] for part in parts]) for i in range(len(graph.inputs))]
    if labels is not None and labels.shape != (len(inputs[0]),):
        problem = f"there are labels of shape {list(labels.shape)} for {len(inputs[0])} samples"
        raise CompileError("SEARCH003", "evaluation", problem, "give one whole number for each sample")
    return inputs, labels


def choice_facts(graph: Graph, choice: Choice, budget: Budget, seconds: float) -> dict[str, Any]:
    """What the report says about a search that took ``seconds``: the limits, the totals, and each layer's score.

    ``graph``: the one with ranges.
    """
    allocation = choice.allocation
    layers = {
        node.origin or node.output.name: {
            "weight_bits": choice.bits[node.inputs[1]],
            "sensitivity": {str(bits): score for bits, score in choice.table.weights[node.inputs[1]].items()},
        }
        for node in graph.nodes
        if node.op in WEIGHTED
    }
    limits = {key: value for key, value in asdict(budget).items() if key not in ("evaluation", "latency_table")}
    return {
        "budget": {key: value for key, value in limits.items() if value is not None},
        "metric": choice.table.metric,
        "totals": dict(allocation.totals),
        "status": allocation.status,
        "gap": allocation.gap,
        "solver": allocation.solver,
        "measured drop %": choice.loss.drop,
        "measured SQNR dB": choice.loss.sqnr_db,
        "seconds": {"sensitivity": choice.table.seconds, "solver": allocation.seconds, "all": round(seconds, 3)},
        "layers": layers,
    }
