"""How much accuracy a choice of bits loses: the library that would ship, on samples.

Results are the same on every target, so the library is built for this machine, whatever it is meant for. Where no target runs
here, the integer reference is asked, which is slower.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from qcompiler.errors import CompileError
from qcompiler.interpret import dequantize, quantize_input, run_float, run_integer
from qcompiler.interrupts import temporary_folder
from qcompiler.ir.graph import Array, Graph
from qcompiler.targets.target import available_targets, host_refusal, load_target

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH: Final = 64
CLEAR: Final = 2.0
"""Standard errors. Rounding fits calibration samples, some bits more than others by chance, so a nearer mean alone says little:
of 512 images, ResNet-20 at 50 % seemed twice as near with the second best bits as with the best, by 1.7 standard errors, and was
not on 3,000 others; ResNet-8 by a third, by 2.7, and was by a fifth."""


def float_scores(graph: Graph, samples: Sequence[Array]) -> Array:
    """The first output of a float graph for all samples."""
    import torch

    with torch.no_grad():
        parts = [
            run_float(graph, [torch.from_numpy(x[start : start + BATCH]) for x in samples])[0].numpy()
            for start in range(0, len(samples[0]), BATCH)
        ]
    return np.concatenate(parts)


def integer_scores(graph: Graph, samples: Sequence[Array]) -> Array:
    """The first output of an integer graph for all samples, as real numbers."""
    output = graph.values[graph.outputs[0]]
    if any(host_refusal(load_target(name)) is None for name in available_targets()):
        with temporary_folder() as folder:
            run = _library(graph, folder)
            return np.concatenate(
                [run([x[start : start + BATCH] for x in samples]) for start in range(0, len(samples[0]), BATCH)]
            )
    codes = [quantize_input(value, x) for value, x in zip(graph.inputs, samples, strict=True)]
    parts = [run_integer(graph, [x[start : start + BATCH] for x in codes])[0] for start in range(0, len(samples[0]), BATCH)]
    return dequantize(output, np.concatenate(parts))


def _library(graph: Graph, folder: Path) -> Callable[[list[Array]], Array]:
    from qcompiler.backend.artifact import write_artifact
    from qcompiler.backend.library import Library
    from qcompiler.backend.lower import lower

    target = load_target("native")
    program = lower(graph, target.instruction_set, target.tvm_target)
    write_artifact(program, target, folder / "library")
    library = Library(folder / "library")

    def run(inputs: list[Array]) -> Array:
        result = library(*inputs, threads=2)
        first: Array = np.asarray(result[0] if isinstance(result, tuple) else result)
        return first

    return run


def top1_drop(expected: Array, found: Array, labels: Array | None, where: str) -> float:
    """Percent: what top-1 loses against ``labels``, or how many classes differ; SEARCH001 where outputs are no scores."""
    if expected.ndim != 2 or expected.shape[1] < 2:
        problem = (
            f"the first output has shape [N, {', '.join(map(str, expected.shape[1:]))}]; accuracy is that of scores [N, classes]"
        )
        raise CompileError("SEARCH001", where, problem, "limit the sensitivity instead of accuracy_drop")
    classes, ours = expected.argmax(1), found.argmax(1)
    if labels is None:
        return 100.0 * float(np.mean(classes != ours))
    return 100.0 * float(np.mean(classes == labels) - np.mean(ours == labels))


def score_distance(expected: Array, found: Array) -> float:
    """The mean Kullback-Leibler divergence of scores ``[N, classes]``, for other outputs the relative squared error."""
    return float(sample_distances(expected, found).mean())


def sample_distances(expected: Array, found: Array) -> Array:
    """What :func:`score_distance` is the mean of, float64[N]."""
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    distances: Array
    if expected.ndim != 2 or expected.shape[1] < 2:
        squares = np.square(found - expected).reshape(len(expected), -1).sum(1)
        distances = squares * (len(expected) / max(np.square(expected).sum(), 1e-300))
    else:
        p, q = _log_softmax(expected), _log_softmax(found)
        distances = (np.exp(p) * (p - q)).sum(1)
    return distances


def clearly_nearer(distances: Array, other: Array) -> bool:
    """Whether the mean of ``other``, of the same samples, is smaller by more than ``CLEAR`` standard errors of the difference."""
    gain = distances - other
    return bool(gain.mean() > CLEAR * gain.std() / np.sqrt(len(gain)))


def _log_softmax(scores: Array) -> Array:
    shifted = scores - scores.max(1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result
