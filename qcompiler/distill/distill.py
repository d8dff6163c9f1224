"""Distills samples from a float graph: inputs for which its batch norms see the statistics that they saw in training.

ZeroQ (Cai et al., arXiv 2001.00281): start from noise and change the inputs themselves, by Adam, until mean and deviation of what
each batch norm reads, taken over a batch, are the running ones. Nothing else is needed: no data, no labels.

What a model's inputs look like is not known either: pixels may be 0 .. 255 or around zero. So an input is
``scale[c] * (noise + offset[c])``; scale and offset are fitted first, to the first batch norm that is reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from qcompiler.distill.noise import smooth_noise
from qcompiler.distill.statistics import Statistics, batch_statistics, explained, up_to
from qcompiler.interpret import run_float
from qcompiler.ir.graph import Array, Graph, Stage, Value
from qcompiler.progress import Progress

COUNT: Final = 64
STEPS: Final = 100
LIVE_BYTES: Final = 1 << 30
"""Of values that are alive at once, since gradients need all of them: what limits the samples of a batch."""
WORK: Final = 1 << 28
"""Elements that a step computes in all batches together: what limits the number of samples of large networks."""
FEWEST: Final = 8  # samples whatever the network's size
FIT_STEPS: Final = 200
FIT_RATE: Final = 0.1  # of a scale and of a deviation: scales get as far as 0 .. 255 and farther
RATE: Final = 0.1  # of a deviation
BETAS: Final = (0.9, 0.999)
SEED: Final = 0


@dataclass(frozen=True)
class Distilled:
    """``samples``: float32 ``[S, ...]`` for each input. ``mismatch``: see ``Statistics.mismatch``, the mean of ``layers``."""

    samples: tuple[Array, ...]
    layers: int
    mismatch: float

    def note(self) -> str:
        """What the report has to say."""
        return (
            "NO CALIBRATION DATA: ranges, rounding and all errors in this report come from "
            f"{len(self.samples[0])} samples made up from the statistics of {self.layers} batch norms "
            f"(mismatch {self.mismatch:.3f}, 0 is perfect); check the accuracy on real data, or pass some as calibration="
        )


class _Batch:
    """``count`` samples that are being learned, with scale and offset for each channel of each input."""

    def __init__(self, values: Sequence[Value], count: int, generator: torch.Generator) -> None:
        self.noise = [smooth_noise(value.type.with_batch(count), generator) for value in values]
        shapes = [(1, *x.shape[1:2], *[1] * (x.ndim - 2)) for x in self.noise]
        self.log_scale = [torch.zeros(shape, requires_grad=True) for shape in shapes]
        self.offset = [torch.zeros(shape, requires_grad=True) for shape in shapes]

    def inputs(self) -> list[Tensor]:
        """The samples as they are now."""
        return [s.exp() * (x + o) for s, x, o in zip(self.log_scale, self.noise, self.offset, strict=True)]

    def mismatch(self, graph: Graph, statistics: Sequence[Statistics]) -> Tensor:
        """The mean over all of ``statistics``."""
        known = {found.name: found for found in statistics}
        found: list[Tensor] = []

        def observe(value: Value, x: Tensor) -> None:
            if value.name in known:
                found.append(known[value.name].mismatch(x))

        run_float(graph, self.inputs(), observe)
        return torch.stack(found).mean()


def distill(
    graph: Graph, count: int = COUNT, steps: int = STEPS, seed: int = SEED, progress: Progress | None = None
) -> Distilled | None:
    """About ``count`` samples for an imported float graph, its batch norms not yet folded; fewer where it is large.

    The same graph, arguments and number of threads give the same samples. None where batch norms do not say what every input is.
    """
    if graph.stage is not Stage.FLOAT:
        return None
    statistics = batch_statistics(graph)
    if not explained(graph, statistics):
        return None
    whole = up_to(graph, [found.name for found in statistics])
    sizes = list(_batch_sizes(whole, count))
    generator = torch.Generator().manual_seed(seed)

    def after() -> None:
        if progress:
            progress.advance("distill", 1, len(sizes) * (FIT_STEPS + steps))

    parts: list[list[Array]] = []
    mismatches: list[float] = []
    with torch.enable_grad():
        for size in sizes:
            batch = _Batch(graph.inputs, size, generator)
            mismatches.append(_learn(batch, whole, statistics, steps, after))
            parts.append([x.detach().numpy() for x in batch.inputs()])
    samples = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Distilled(samples, len(statistics), float(np.average(mismatches, weights=sizes)))


def _batch_sizes(graph: Graph, count: int) -> Iterator[int]:
    """How many samples to learn at a time: about equally many."""
    elements = max(1, sum(value.type.elements for value in graph.values.values()))
    count = min(count, max(FEWEST, WORK // elements))
    batches = math.ceil(count / max(1, LIVE_BYTES // (4 * elements)))
    for index in range(batches):
        yield (count + index) // batches


def _learn(batch: _Batch, graph: Graph, statistics: Sequence[Statistics], steps: int, after: Callable[[], None]) -> float:
    """Change ``batch`` until it has these statistics, or nearly; gives the mismatch that is left."""
    first = _first(graph, statistics)
    start = up_to(graph, [found.name for found in first])
    affine = [*batch.log_scale, *batch.offset]
    _descend(lambda: batch.mismatch(start, first), [(affine, FIT_RATE)], FIT_STEPS, after)
    for x in batch.noise:
        x.requires_grad_()
    _descend(lambda: batch.mismatch(graph, statistics), [(batch.noise, RATE), (affine, 0.1 * RATE)], steps, after)
    with torch.no_grad():
        return float(batch.mismatch(graph, statistics))


def _first(graph: Graph, statistics: Sequence[Statistics]) -> list[Statistics]:
    """The fewest of ``statistics``, from the first on, that every input reaches."""
    for end in range(1, len(statistics)):
        if explained(graph, statistics[:end]):
            return list(statistics[:end])
    return list(statistics)


def _descend(
    loss: Callable[[], Tensor], groups: Sequence[tuple[list[Tensor], float]], steps: int, after: Callable[[], None]
) -> None:
    """Adam with a learning rate for each group, falling along a cosine; ends where the loss is no longer a number."""
    optimizer = torch.optim.Adam([{"params": tensors, "lr": rate} for tensors, rate in groups], betas=BETAS)
    for step in range(steps):
        for group, (_, rate) in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] = rate * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        found = loss()
        if not torch.isfinite(found):
            return
        optimizer.zero_grad(set_to_none=True)
        found.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        after()
