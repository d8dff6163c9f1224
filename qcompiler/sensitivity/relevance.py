"""Relevance scores: a tensor's share of the relevance times the relative power of its perturbation, without a unit.

Layer-wise relevance propagation: what the network answers, the score of its class or its outputs, is handed back node by node in
proportion to what each operand contributed, by the epsilon rule (Bach et al., "On Pixel-Wise Explanations for Non-Linear
Classifier Decisions by Layer-Wise Relevance Propagation", PLOS ONE 2015). As a weight for bits: Ranjan and Savakis, "LRP-QViT:
Mixed-Precision Vision Transformer Quantization via Layer-wise Relevance Propagation", arXiv 2401.11243. A layer's share is the
magnitude of the relevance of its results over that of all layers', for each sample; biases keep what is theirs. The relevance of
an activation is over that of all layers' as well. Functions of one value hand on what they get, products halve it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch

from qcompiler.ir.graph import WEIGHTED, Node
from qcompiler.ops.table import OPERATORS
from qcompiler.sensitivity.cache import Measured
from qcompiler.sensitivity.float_run import FloatRun, compared_outputs, float_constants
from qcompiler.sensitivity.problem import STEP, Problem
from qcompiler.sensitivity.scores import Scores, Sums, sum_and_squares

EPSILON: Final = 1e-2  # of a result's root mean square
TINY: Final = 1e-12
ELEMENTWISE: Final = ("clip", "function", "prelu", "quantizer")
PRODUCTS: Final = ("matmul", "mul")


def relevance_scores(problem: Problem, measured: Measured) -> Scores:
    """The scores of every choice."""
    candidates, constants = problem.candidates, float_constants(problem.graph)
    choices = [(name, bits) for name in candidates.classes for bits in candidates.activation_bits]
    sums = [Sums() for _ in (*candidates.weights, *choices)]
    for start, inputs in problem.batches():
        numbers = measured.get(f"{start}")
        if numbers is None:
            run = FloatRun(problem.graph, inputs, constants)
            found = _batch_scores(problem, run, start)
            numbers = measured.put(f"{start}", [number for each in found for number in sum_and_squares(each)])
        for index, one in enumerate(sums):
            one.add(numbers[2 * index], numbers[2 * index + 1], len(inputs[0]))
        problem.progress.advance(STEP, len(inputs[0]), len(problem))
    scores = Scores()
    for name, one in zip(candidates.weights, sums, strict=False):
        power = constants[name].square().sum(dtype=torch.float64) + TINY
        for bits in candidates.weight_bits:
            relative = float(candidates.perturbation(name, bits).square().sum(dtype=torch.float64) / power)
            scores.put((name, bits), relative * one.mean, None if one.error is None else relative * one.error)
    for choice, one in zip(choices, sums[len(candidates.weights) :], strict=True):
        scores.put(choice, one.mean, one.error)
    return scores


def _batch_scores(problem: Problem, run: FloatRun, start: int) -> list[torch.Tensor]:
    """For each sample the share of every weight tensor, then the score of every activation choice; float64[n] each."""
    candidates = problem.candidates
    found = propagate(run, output_relevance(problem, run, start))
    relevance = {name: _magnitude(r) for name, r in found.items()}
    nothing = torch.zeros(len(run.outputs()[0]), dtype=torch.float64)
    layers = dict.fromkeys(candidates.weights, nothing)
    for node in problem.graph.nodes:
        if node.op in WEIGHTED and node.inputs[1] in layers:
            layers[node.inputs[1]] = layers[node.inputs[1]] + relevance.get(node.output.name, nothing)
    whole = sum(layers.values(), nothing) + TINY
    scores = [layer / whole for layer in layers.values()]
    for name in candidates.classes:
        for bits in candidates.activation_bits:
            terms = [
                relevance[member] / whole * _power(error) / (_power(run.values[member]) + TINY)
                for member, error in candidates.own_errors(name, bits, run.values).items()
                if member in relevance
            ]
            scores.append(sum(terms, nothing))
    return scores


def output_relevance(problem: Problem, run: FloatRun, start: int) -> dict[str, torch.Tensor]:
    """Where relevance begins: the score of the label's or the most likely class; all outputs of other networks."""
    names, outputs = compared_outputs(problem.graph), run.outputs()
    if not problem.classifies:
        return dict(zip(names, outputs, strict=True))
    (logits,) = outputs
    chosen = torch.zeros_like(logits).scatter_(1, problem.classes(logits, start)[:, None], 1.0)
    return {names[0]: logits * chosen}


def propagate(run: FloatRun, relevance: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The relevance of every value that contributes to those of ``relevance``, shaped like the values."""
    found = dict(relevance)
    for node in reversed(run.graph.nodes):
        if node.output.name in found:
            operands = [i for i in dict.fromkeys(node.inputs) if i in run.values]
            for name, part in zip(operands, _handed_back(run, node, operands, found[node.output.name]), strict=True):
                found[name] = found[name] + part if name in found else part
    return found


def _handed_back(run: FloatRun, node: Node, operands: Sequence[str], relevance: torch.Tensor) -> list[torch.Tensor]:
    """What each of ``operands`` gets of the result's relevance."""
    if node.op in ELEMENTWISE:
        return [relevance for _ in operands]
    leaves = {name: run.values[name].clone().requires_grad_() for name in operands}
    tensors = [leaves[name] if name in leaves else run.constants[name] for name in node.inputs]
    with torch.enable_grad():
        result = OPERATORS[node.op].run_float(node.with_attributes(clamp=None), tensors)
    if not result.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves.values()]
    exact = result.detach()
    floor = EPSILON * exact.square().mean().sqrt() + TINY
    ratio = relevance / (exact + torch.where(exact < 0, -floor, floor))
    gradients = torch.autograd.grad(result, list(leaves.values()), ratio, allow_unused=True, materialize_grads=True)
    share = 1.0 / len(operands) if node.op in PRODUCTS else 1.0
    return [leaf.detach() * gradient * share for leaf, gradient in zip(leaves.values(), gradients, strict=True)]


def _magnitude(x: torch.Tensor) -> torch.Tensor:
    return x.abs().reshape(len(x), -1).sum(1, dtype=torch.float64)


def _power(x: torch.Tensor) -> torch.Tensor:
    return x.square().reshape(len(x), -1).sum(1, dtype=torch.float64)
