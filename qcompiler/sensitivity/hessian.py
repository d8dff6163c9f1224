"""Hessian scores: half the mean curvature of a tensor times the squared norm of its perturbation, in the loss's unit.

HAWQ-V2 (Dong et al., arXiv 1911.03852) and HAWQ-V3 (Yao et al., arXiv 2011.10680); the half is added here, so that a score is
the expected increase of the loss by a perturbation in a random direction. The trace is Hutchinson's: the mean of ``z . H z`` over
probes ``z`` of random signs. A round draws one probe for each batch and each tensor: a single one for all tensors is cheaper, but
the blocks off the diagonal make it noisier by more than that. Rounds end when the standard error of every trace, over the rounds,
is under ``tolerance`` of it, or of ``FLOOR`` of the mean trace; or after ``maximum_probes``. The error does not know how far
other samples would be. An activation has a Hessian for each sample; its trace is the mean over the samples. Traces below zero
count as zero: noise must not be a gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from qcompiler.sensitivity.cache import Measured
from qcompiler.sensitivity.draws import signs
from qcompiler.sensitivity.float_run import CACHED_ELEMENTS, FloatRun, batch_size, float_constants
from qcompiler.sensitivity.problem import STEP, Problem
from qcompiler.sensitivity.sample_gradients import Gradients, differentiate
from qcompiler.sensitivity.scores import Scores, Sums

LEAST_ROUNDS: Final = 4  # before a standard error says anything
FLOOR: Final = 0.01  # of the mean trace: smaller ones need not be known precisely
GRADIENT_ELEMENTS: Final = CACHED_ELEMENTS // 4  # second derivatives keep about four times the values
LARGEST_BATCH: Final = 8  # samples of one probe: more probes in a round are worth more than fewer runs


@dataclass(frozen=True)
class Trace:
    """The trace of a tensor's diagonal block of the Hessian, of how many elements, and its standard error."""

    trace: float
    error: float
    elements: int


def hessian_scores(problem: Problem, measured: Measured) -> Scores:
    """The scores of every choice."""
    traces, candidates = layer_traces(problem, measured), problem.candidates
    norms = activation_norms(problem, measured)
    scores = Scores()
    for name, bits in candidates.choices():
        if name in candidates.classes:
            terms = [(traces[member], norms[f"{name} {bits} {member}"]) for member in candidates.rounding_members(name)]
        else:
            terms = [(traces[name], float(candidates.perturbation(name, bits).square().sum(dtype=torch.float64)))]
        weighted = [(0.5 * norm / trace.elements, trace) for trace, norm in terms]
        score = sum(weight * max(trace.trace, 0.0) for weight, trace in weighted)
        scores.put((name, bits), score, sum(weight * trace.error for weight, trace in weighted))
    return scores


def layer_traces(problem: Problem, measured: Measured) -> dict[str, Trace]:
    """The traces of all weights, and of all values at which rounding adds something, by their names."""
    candidates = problem.candidates
    members = [member for name in candidates.classes for member in candidates.rounding_members(name)]
    names = [*candidates.weights, *members]
    sums = [Sums() for _ in names]
    for number in range(max(problem.maximum_probes, 1)):
        found = [0.0] * len(names)
        for start, inputs in problem.batches(min(batch_size(problem.graph, GRADIENT_ELEMENTS), LARGEST_BATCH)):
            unit = f"round {number} batch {start}"
            numbers = measured.get(unit)
            if numbers is None:
                numbers = measured.put(unit, _probe(problem, names, inputs, start, unit))
            share = len(inputs[0]) / len(problem)
            found = [total + share * estimate for total, estimate in zip(found, numbers, strict=True)]
        for one, estimate in zip(sums, found, strict=True):
            one.add(estimate, estimate * estimate, 1)
        problem.progress.advance(STEP, 1, problem.maximum_probes)
        if number + 1 >= LEAST_ROUNDS and _settled(sums, problem.tolerance):
            break
    elements = [problem.graph.type_of(name).elements for name in names]
    return {n: Trace(s.mean, s.error or 0.0, e) for n, s, e in zip(names, sums, elements, strict=True)}


def _settled(sums: Sequence[Sums], tolerance: float) -> bool:
    floor = FLOOR * sum(abs(one.mean) for one in sums) / max(len(sums), 1)
    return all((one.error or 0.0) <= tolerance * max(abs(one.mean), floor) for one in sums)


def _probe(problem: Problem, names: Sequence[str], inputs: Sequence[torch.Tensor], start: int, unit: str) -> list[float]:
    """``z . H z`` of one batch's mean loss for each weight tensor and each value, with a probe of its own for each."""
    gradients = Gradients(problem)
    loss = gradients.loss(inputs, start, noisy=False)
    tensors = [gradients.constants[name] if name in gradients.constants else gradients.values[name] for name in names]
    found = []
    for name, x, gradient in zip(names, tensors, differentiate(loss, tensors, again=True), strict=True):
        probe = signs(problem.seed, f"{unit} {name}", x.shape)
        (second,) = differentiate((gradient * probe).sum(), [x], keep=True)
        found.append(float((probe * second).sum(dtype=torch.float64)))
    return found


def activation_norms(problem: Problem, measured: Measured) -> Mapping[str, float]:
    """The mean over the samples of the squared norm of what rounding adds, by class, bits and value."""
    candidates = problem.candidates
    keys = [
        (name, bits, member)
        for name in candidates.classes
        for bits in candidates.activation_bits
        for member in candidates.rounding_members(name)
    ]
    totals, constants = [0.0] * len(keys), float_constants(problem.graph)
    for start, inputs in problem.batches():
        unit = f"norms {start}"
        numbers = measured.get(unit)
        if numbers is None:
            values = FloatRun(problem.graph, inputs, constants).values
            found = []
            for name in candidates.classes:
                for bits in candidates.activation_bits:
                    errors = candidates.own_errors(name, bits, values)
                    found += [float(e.square().sum(dtype=torch.float64)) for e in errors.values()]
            numbers = measured.put(unit, found)
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
    return {f"{name} {bits} {m}": total / len(problem) for (name, bits, m), total in zip(keys, totals, strict=True)}
