"""What is analyzed: a graph, samples and labels, checked, in batches; and the loss whose increase is estimated.

Where the network has one output ``[N, C]`` with C > 1, the loss is the cross entropy in nats, of the labels or, without any, of
the network's own most likely classes. Any other network, and each of several outputs, is a regression of its own outputs: the
loss is half the mean square of the difference, summed over the outputs. There the gradient is zero, so where one is needed the
targets are the outputs plus normal noise, whose variance is the number of an output's elements: then the mean of the squared
gradients is the Hessian's diagonal, the Fisher information.

Errors: SENS002 no samples, SENS003 samples that the graph does not take, SENS004 labels that do not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from qcompiler.errors import CompileError
from qcompiler.ir.graph import BATCH, Array, Graph
from qcompiler.progress import Progress, Silent
from qcompiler.sensitivity.candidates import Candidates
from qcompiler.sensitivity.draws import normal
from qcompiler.sensitivity.float_run import batch_size, compared_outputs

STEP = "sensitivity"


@dataclass(frozen=True)
class Problem:
    """``samples``: float32 ``[S, ...]`` for each input; ``labels``: int64[S]. ``seed``: of all that is drawn."""

    graph: Graph
    samples: Sequence[Array]
    labels: Array | None
    candidates: Candidates
    seed: int = 0
    tolerance: float = 0.1
    maximum_probes: int = 8
    progress: Progress = field(default_factory=Silent)

    def __len__(self) -> int:
        return len(self.samples[0])

    def batches(self, size: int | None = None) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """The first sample's index and the tensors of batches of ``size`` samples, by default as many as memory is meant for."""
        size = size or batch_size(self.graph)
        for start in range(0, len(self), size):
            yield start, [torch.from_numpy(x[start : start + size].copy()) for x in self.samples]

    @property
    def classifies(self) -> bool:
        """Whether the network has one output of classes."""
        return classifies(self.graph)

    def loss(self, outputs: Sequence[torch.Tensor], start: int, noisy: bool = False) -> torch.Tensor:
        """The mean loss of a batch whose first sample is number ``start``; ``noisy``: with targets that give gradients."""
        if self.classifies:
            (logits,) = outputs
            return torch.nn.functional.cross_entropy(logits, self.classes(logits, start))
        total = torch.zeros(())
        for index, output in enumerate(outputs):
            target = output.detach()
            if noisy:
                noise = normal(self.seed, f"target {index} {start}", output.shape)
                target = target + noise * max(target[0].numel(), 1) ** 0.5
            total = total + (output - target).square().mean() / 2
        return total

    def classes(self, logits: torch.Tensor, start: int) -> torch.Tensor:
        """The labels of a batch whose first sample is number ``start``, or the most likely classes; int64[n]."""
        if self.labels is None:
            return logits.detach().argmax(1)
        return torch.from_numpy(self.labels[start : start + len(logits)])


def classifies(graph: Graph) -> bool:
    """Whether the only output that counts is ``[N, C]`` with C > 1."""
    shapes = [graph.values[name].type.shape for name in compared_outputs(graph)]
    return len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][0] == BATCH and shapes[0][1] != 1


def checked_samples(graph: Graph, samples: Sequence[Array]) -> list[Array]:
    """``samples`` as finite float32 arrays, one ``[S, ...]`` for each input."""
    remedy = "pass one float32 array [samples, ...] for each input, in the model's own layout"
    if len(samples) != len(graph.inputs):
        raise _error("SENS003", f"there are {len(samples)} arrays, the model has {len(graph.inputs)} inputs", remedy)
    arrays = [np.asarray(x) for x in samples]
    for value, x in zip(graph.inputs, arrays, strict=True):
        expected = value.type.shape
        if x.ndim != len(expected) or any(e not in (BATCH, s) for e, s in zip(expected, x.shape, strict=True)):
            shape = ", ".join(map(str, expected))
            raise _error("SENS003", f"input {value.name} has shape {list(x.shape)}, the model takes [{shape}]", remedy)
        if x.dtype.kind not in "fiub":
            raise _error("SENS003", f"input {value.name} has elements of type {x.dtype}", remedy)
        if not np.isfinite(x).all():
            raise _error("SENS003", f"input {value.name} has NaN or infinite values", "remove or repair these samples")
    counts = [len(x) for x in arrays]
    if len(set(counts)) > 1:
        raise _error("SENS003", f"the inputs have {counts} samples", "pass equally many samples for every input")
    if counts[0] == 0:
        raise _error("SENS002", "there are no samples", "pass at least one sample; 64 to 512 are enough")
    return [np.ascontiguousarray(x, dtype=np.float32) for x in arrays]


def checked_labels(graph: Graph, labels: Array | None, samples: int) -> Array | None:
    """``labels`` as int64[S]."""
    if labels is None:
        return None
    labels = np.asarray(labels)
    if not classifies(graph):
        shapes = ", ".join(str(graph.values[name].type) for name in compared_outputs(graph))
        problem = f"labels are given, but the outputs ({shapes}) are not the scores of one choice of classes"
        raise _error("SENS004", problem, "leave the labels away")
    if labels.dtype.kind not in "iu" or labels.shape != (samples,):
        problem = f"the labels are {labels.dtype}{list(labels.shape)}, for {samples} samples"
        raise _error("SENS004", problem, f"pass integers [{samples}]")
    classes = graph.values[compared_outputs(graph)[0]].type.shape[1]
    if int(labels.min()) < 0 or int(labels.max()) >= int(classes):
        problem = f"the labels are {labels.min()} to {labels.max()}, the network has {classes} classes"
        raise _error("SENS004", problem, f"pass class numbers 0 to {int(classes) - 1}")
    return labels.astype(np.int64)


def _error(code: str, problem: str, remedy: str) -> CompileError:
    return CompileError(code, "sensitivity", problem, remedy)
