"""The training loop of :func:`qcompiler.fine_tune`: Adam, with a rate that falls to zero along a cosine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from qcompiler.errors import CompileError
from qcompiler.progress import Progress
from qcompiler.training.data import TrainingData
from qcompiler.training.losses import default_loss
from qcompiler.training.module import TrainableModel

Loss = Callable[[Any, Any, Any], torch.Tensor]
"""``(outputs, the float model's outputs, target)`` to a scalar; see :func:`default_loss`."""


def train(
    model: TrainableModel,
    data: Any,
    epochs: int,
    loss: Loss | None = None,
    rate: float = 0.3,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[float]:
    """Train ``model`` in place; the mean loss of every epoch.

    Reproducible to the bit for one number of torch threads. Raises CompileError OPTION001 for settings that mean nothing, those
    of :class:`TrainingData` for data, TRAIN003 where the loss stops being finite; the parameters are then those of the beginning.
    """
    if epochs < 1 or not 0 < rate < math.inf:
        problem = f"epochs is {epochs}, rate {rate}"
        raise CompileError("OPTION001", "fine_tune", problem, "choose at least 1 epoch and a rate above 0")
    batches = TrainingData(model.original, data)
    optimizer = torch.optim.Adam(model.parameter_groups(rate))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        return _train(model, batches, epochs, loss or default_loss, optimizer, np.random.default_rng(seed), progress)
    except BaseException:  # Ctrl-C too
        model.load_state_dict(before)
        raise


def _train(
    model: TrainableModel,
    batches: TrainingData,
    epochs: int,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    generator: np.random.Generator,
    progress: Progress | None,
) -> list[float]:
    count = batches.count()
    rates = [group["lr"] for group in optimizer.param_groups]
    history: list[float] = []
    for epoch in range(epochs):
        losses: list[float] = []
        for inputs, target in batches.epoch(generator):
            done = (epoch + (len(losses) / count if count else 0.0)) / epochs
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * 0.5 * (1.0 + math.cos(math.pi * done))
            optimizer.zero_grad()
            value = loss(model(*inputs), model.float_outputs(*inputs), target)
            losses.append(float(value.detach()))
            if not math.isfinite(losses[-1]):
                problem = f"the loss of step {len(losses)} of epoch {epoch + 1} is {losses[-1]}"
                raise CompileError("TRAIN003", "fine_tune", problem, "lower rate=, or look at the loss")
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if progress:
                progress.advance("fine-tune", 1, epochs * count if count else None)
        if not losses:
            raise CompileError("TRAIN002", "data", "the training data has no batches", "pass at least one sample")
        history.append(sum(losses) / len(losses))
    return history
