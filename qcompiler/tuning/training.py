"""Trains a simulated graph end to end: weights straight through their rounding, their scales, biases, activation scales.

The loss is the distance of the outputs from those of the float graph (distillation: Kullback-Leibler divergence for one output of
scores ``[N, C]``, relative squared error otherwise) and, where there are labels, the cross entropy beside it. Learned step sizes:
Esser et al., arXiv 1902.08153; what training saw last is the graph that :meth:`SimulatedGraph.to_graph` gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import functional

from qcompiler.ir.graph import Array
from qcompiler.tuning.simulation import SimulatedGraph

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT_RATE: Final = 0.05  # of a code's step
SCALE_RATE: Final = 1e-3  # of a scale
BIAS_RATE: Final = 0.02  # of an output's code
OUTPUT_STEP: Final = 0.01  # what counts as a code of values that have none


@dataclass(frozen=True)
class Batch:
    """``inputs``: float32 ``[n, ...]`` for each input; ``labels`` int64[n] or None."""

    inputs: tuple[Tensor, ...]
    labels: Tensor | None = None


def distance(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """How far outputs are from the float graph's."""
    if len(outputs) == 1 and outputs[0].ndim == 2 and outputs[0].shape[1] > 1:
        target = functional.log_softmax(targets[0], 1)
        return functional.kl_div(functional.log_softmax(outputs[0], 1), target, reduction="batchmean", log_target=True)
    losses = [functional.mse_loss(y, t) / t.square().mean().clamp(min=1e-12) for y, t in zip(outputs, targets, strict=True)]
    return torch.stack(losses).sum()


def parameter_groups(simulated: SimulatedGraph, rate: float) -> list[dict[str, Any]]:
    """Adam's groups: every parameter moves by about ``rate`` times what is a small step for it."""
    groups = []
    for weight in simulated.weight_quantizers():
        scale = float(weight.scale.detach().mean())
        groups.append({"params": [weight.weight], "lr": rate * WEIGHT_RATE * scale})
        groups.append({"params": [weight.scale], "lr": rate * SCALE_RATE * scale})
    for quantizer in simulated.activation_quantizers():
        if quantizer.scale.requires_grad:
            groups.append({"params": [quantizer.scale], "lr": rate * SCALE_RATE * float(quantizer.scale.detach())})
    for node in simulated.graph.nodes:
        name = node.output.name
        if name in simulated.bias_of:
            index = simulated.quantizer_of.get(name)
            step = OUTPUT_STEP if index is None else float(simulated.activation_quantizers()[index].scale.detach())
            groups.append({"params": [simulated.bias(node)], "lr": rate * BIAS_RATE * step})
    return groups


def train(
    simulated: SimulatedGraph,
    teacher: Callable[[tuple[Tensor, ...]], Sequence[Tensor]],
    epochs: Iterable[Iterable[Batch]],
    steps: int,
    rate: float = 1.0,
    label_weight: float = 1.0,
    after: Callable[[int, float], None] | None = None,
) -> None:
    """``steps`` batches of ``epochs``, the learning rate falling along a cosine; ``after(step, loss)`` sees each."""
    groups = parameter_groups(simulated, rate)
    optimizer = torch.optim.Adam(groups)
    first = [group["lr"] for group in optimizer.param_groups]
    batches = (batch for epoch in epochs for batch in epoch)
    for step, batch in zip(range(steps), batches, strict=False):
        for group, lr in zip(optimizer.param_groups, first, strict=True):
            group["lr"] = lr * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        result = simulated(*batch.inputs)
        outputs = result if isinstance(result, tuple) else (result,)
        with torch.no_grad():
            targets = teacher(batch.inputs)
        loss = distance(outputs, targets)
        if batch.labels is not None:
            loss = loss + label_weight * functional.cross_entropy(outputs[0], batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if after:
            after(step, float(loss.detach()))


def shuffled(samples: Sequence[Array], size: int, seed: int) -> Iterator[list[Batch]]:
    """Epochs without end over arrays ``[S, ...]``, each in another order."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.from_numpy(x) for x in samples]
    while True:
        order = torch.randperm(len(tensors[0]), generator=generator)
        parts = [part for part in torch.split(order, size) if len(part) == min(size, len(order))]
        yield [Batch(tuple(x[part] for x in tensors)) for part in parts]
