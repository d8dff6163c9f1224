"""Scores by the top eigenvalue: half of it times the squared norm of the weights' perturbation, in the loss's unit.

HAWQ (Dong et al., arXiv 1905.03696): no perturbation of this norm costs more, to second order. The largest eigenvalue of each
layer's diagonal block of the mean loss's Hessian is found by power iteration; where that finds a negative one first, once more
with a shift by it. For weights only, as in the paper: the table has no activations.
"""

from __future__ import annotations

from typing import Final

import torch

from qcompiler.sensitivity.cache import Measured
from qcompiler.sensitivity.draws import normal
from qcompiler.sensitivity.float_run import batch_size
from qcompiler.sensitivity.hessian import GRADIENT_ELEMENTS
from qcompiler.sensitivity.problem import STEP, Problem
from qcompiler.sensitivity.sample_gradients import Gradients, differentiate
from qcompiler.sensitivity.scores import Scores

CHANGE: Final = 1e-3  # of an eigenvalue from one iteration to the next: it converges twice as fast as its vector
MOST_ITERATIONS: Final = 50


def eigenvalue_scores(problem: Problem, measured: Measured) -> Scores:
    """The scores of all weights."""
    scores, candidates = Scores(), problem.candidates
    for name in candidates.weights:
        numbers = measured.get(name)
        if numbers is None:
            numbers = measured.put(name, [top_eigenvalue(problem, name)])
        for bits in candidates.weight_bits:
            norm = float(candidates.perturbation(name, bits).square().sum(dtype=torch.float64))
            scores.put((name, bits), 0.5 * max(numbers[0], 0.0) * norm)
        problem.progress.advance(STEP, 1, len(candidates.weights))
    return scores


def top_eigenvalue(problem: Problem, name: str, change: float = CHANGE) -> float:
    """The largest eigenvalue of the mean loss's Hessian by the weights ``name``."""
    largest = _power_iteration(problem, name, 0.0, change)
    return largest if largest >= 0.0 else _power_iteration(problem, name, -largest, change)


def _power_iteration(problem: Problem, name: str, shift: float, change: float) -> float:
    """The eigenvalue of the block that is largest in magnitude once ``shift`` is added."""
    vector = normal(problem.seed, f"eigenvector {name}", problem.graph.constant[name].data.shape)
    vector /= vector.norm()
    found = 0.0
    for _ in range(MOST_ITERATIONS):
        product = _hessian_product(problem, name, vector) + shift * vector
        before, found = found, float((vector * product).sum(dtype=torch.float64))
        norm = float(product.norm())
        if norm == 0.0 or abs(found - before) <= change * abs(found):
            break
        vector = product / norm
    return found - shift


def _hessian_product(problem: Problem, name: str, vector: torch.Tensor) -> torch.Tensor:
    """The block of the mean loss's Hessian times ``vector``."""
    total = torch.zeros_like(vector)
    for start, inputs in problem.batches(batch_size(problem.graph, GRADIENT_ELEMENTS)):
        gradients = Gradients(problem)
        weight = gradients.constants[name]
        (first,) = differentiate(gradients.loss(inputs, start, noisy=False), [weight], again=True)
        (second,) = differentiate((first * vector).sum(), [weight])
        total += second * (len(inputs[0]) / len(problem))
    return total
