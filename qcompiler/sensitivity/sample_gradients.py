"""The loss's gradients by each weight tensor and each activation, of one sample at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch

from qcompiler.interpret import run_float
from qcompiler.ir.graph import Value
from qcompiler.sensitivity.cache import Measured
from qcompiler.sensitivity.float_run import compared_outputs, float_constants
from qcompiler.sensitivity.problem import STEP, Problem
from qcompiler.sensitivity.scores import Choice, Scores, Sums

CHUNK: Final = 16  # samples that are measured, and kept, at once

Harm = Callable[[torch.Tensor, torch.Tensor], float]
"""What a gradient and a perturbation of the same shape cost one sample."""


class Gradients:
    """Runs a sample and differentiates; ``weights`` and ``values`` are what it can differentiate by."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.constants = float_constants(problem.graph)
        for name in problem.candidates.weights:
            self.constants[name].requires_grad_()
        self.values: dict[str, torch.Tensor] = {}

    def loss(self, inputs: Sequence[torch.Tensor], start: int, noisy: bool) -> torch.Tensor:
        """The mean loss of a batch; ``values`` are its values from now on."""
        self.values = {}

        def observe(value: Value, tensor: torch.Tensor) -> None:
            self.values[value.name] = tensor

        leaves = [x.clone().requires_grad_() for x in inputs]
        run_float(self.problem.graph, leaves, observe, self.constants)
        return self.problem.loss([self.values[name] for name in compared_outputs(self.problem.graph)], start, noisy)


def differentiate(
    y: torch.Tensor, by: Sequence[torch.Tensor], keep: bool = False, again: bool = False
) -> tuple[torch.Tensor, ...]:
    """The gradients of the number ``y``; zeros where it does not depend on a tensor.

    ``keep``: more gradients of ``y`` follow; ``again``: those of the gradients follow.
    """
    if not by or not y.requires_grad:
        return tuple(torch.zeros_like(x) for x in by)
    return torch.autograd.grad(y, by, retain_graph=keep or again, create_graph=again, allow_unused=True, materialize_grads=True)


def gradient_scores(problem: Problem, harms: Sequence[Harm], column: int, measured: Measured) -> Scores:
    """The mean over the samples of one of ``harms`` for every choice; all of them are measured at once and kept."""
    choices = list(problem.candidates.choices())
    sums = [Sums() for _ in choices]
    gradients = Gradients(problem)
    for start in range(0, len(problem), CHUNK):
        indices = range(start, min(start + CHUNK, len(problem)))
        numbers = measured.get(f"{start}")
        if numbers is None:
            rows = []
            for index in indices:
                rows.append(_sample_harms(problem, gradients, choices, harms, index))
                problem.progress.advance(STEP, 1, len(problem))
            table = torch.tensor(rows, dtype=torch.float64)  # [samples, choices * harms]
            pairs = torch.stack([table.sum(0), table.square().sum(0)], dim=1)
            numbers = measured.put(f"{start}", pairs.flatten().tolist())
        else:
            problem.progress.advance(STEP, len(indices), len(problem))
        for index, one in enumerate(sums):
            at = 2 * (index * len(harms) + column)
            one.add(numbers[at], numbers[at + 1], len(indices))
    return Scores.of(zip(choices, sums, strict=True))


def _sample_harms(
    problem: Problem, gradients: Gradients, choices: Sequence[Choice], harms: Sequence[Harm], index: int
) -> list[float]:
    """For each choice each of ``harms`` to the sample number ``index``."""
    inputs = [torch.from_numpy(x[index : index + 1].copy()) for x in problem.samples]
    loss = gradients.loss(inputs, index, noisy=True)
    candidates = problem.candidates
    members = [member for name in candidates.classes for member in candidates.rounding_members(name)]
    names = [*candidates.weights, *members]
    tensors = [gradients.constants[n] if n in candidates.weights else gradients.values[n] for n in names]
    by_name = dict(zip(names, differentiate(loss, tensors), strict=True))
    found = []
    with torch.no_grad():
        for name, bits in choices:
            if name in candidates.classes:
                errors = candidates.own_errors(name, bits, gradients.values)
            else:
                errors = {name: candidates.perturbation(name, bits)}
            gradient = torch.cat([by_name[member].flatten() for member in errors])
            error = torch.cat([errors[member].flatten() for member in errors])
            found += [harm(gradient, error) for harm in harms]
    return found
