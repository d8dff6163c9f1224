"""The entry: scores of every weight tensor and activation class at each number of bits, by one of several metrics.

| metric | what it is | module |
|---|---|---|
| kl, mse, sqnr | distance of the outputs when one tensor is really quantized | ``output_distance.py`` |
| fisher | squared gradients of single samples times squared perturbations | ``fisher.py`` |
| taylor | gradients of single samples times perturbations | ``taylor.py`` |
| hessian | mean trace of the Hessian times the perturbation's squared norm (HAWQ-V2) | ``hessian.py`` |
| hessian_top | top eigenvalue of the Hessian times the same (HAWQ), of weights only | ``eigenvalue.py`` |
| relevance | share of the relevance times the perturbation's relative power (LRP-QViT) | ``relevance.py`` |

Errors: SENS001 unknown metric, SENS007 bits that no quantizer has, SENS008 a score is NaN or infinite; SENS002 to SENS006: see
the modules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qcompiler.errors import CompileError, InternalError
from qcompiler.ir.graph import Array, Graph, Stage
from qcompiler.progress import Progress, Silent
from qcompiler.sensitivity.table import SensitivityTable

if TYPE_CHECKING:
    from torch import Tensor

    from qcompiler.sensitivity.cache import Measured
    from qcompiler.sensitivity.problem import Problem
    from qcompiler.sensitivity.scores import Scores

DISTANCES: Final = ("kl", "mse", "sqnr")
GRADIENTS: Final = ("fisher", "taylor")
METRICS: Final = (*DISTANCES, *GRADIENTS, "hessian", "hessian_top", "relevance")
WEIGHT_BITS: Final = (2, 4, 8)
ACTIVATION_BITS: Final = (4, 8)


def sensitivities(
    graph: Graph,
    samples: Sequence[Array],
    metric: str | None = None,
    labels: Array | None = None,
    weight_bits: Sequence[int] = WEIGHT_BITS,
    activation_bits: Sequence[int] = ACTIVATION_BITS,
    progress: Progress | None = None,
    cache: Path | None = None,
    seed: int = 0,
    tolerance: float = 0.1,
    maximum_probes: int = 8,
    rounded: Mapping[tuple[str, int], Mapping[str, Tensor]] | None = None,
) -> SensitivityTable:
    """The table of a calibrated graph by ``metric``, one of ``METRICS``.

    By default it is "kl" where the network has one output ``[N, C]`` of C > 1 classes, "sqnr" for any other network.
    ``samples``: one float32 array ``[S, ...]`` for each input; ``labels``: int64[S], for the metrics that differentiate the loss
    (the others do without), see ``problem.py``. ``activation_bits`` may be empty. ``cache``: a folder in which an interrupted
    analysis goes on; a finished one is read from there. ``tolerance``, ``maximum_probes``: when the Hessian's probes end, see
    ``hessian.py``. ``rounded``: the constants that change when weights, by their name, get some bits; by default the weights'
    nearest codes; not to be combined with ``cache``. Memory: one batch's values, and the gradients, whatever the number of
    samples. Raises CompileError.
    """
    require_metric(metric, (None, *METRICS))
    settings = labels, weight_bits, activation_bits, progress, seed, tolerance, maximum_probes, rounded
    problem = make_problem(graph, samples, *settings)
    if metric is None:
        metric = "kl" if problem.classifies else "sqnr"
    with open_measured(problem, metric, cache) as measured:
        scores = _scores(problem, metric, measured)
        seconds = measured.seconds
    _require_finite(metric, scores)
    weights = {name: scores.means[name] for name in problem.candidates.weights if name in scores.means}
    activations = {name: scores.means[name] for name in problem.candidates.classes if name in scores.means}
    return SensitivityTable(metric, weights, activations, scores.errors, len(problem), seconds)


def require_metric(metric: str | None, legal: Sequence[str | None]) -> None:
    """SENS001 unless ``metric`` is one of ``legal``."""
    if metric not in legal:
        names = ", ".join(name for name in legal if name is not None)
        raise CompileError("SENS001", "sensitivity", f"there is no metric {metric!r}", f"choose one of {names}")


def make_problem(
    graph: Graph,
    samples: Sequence[Array],
    labels: Array | None = None,
    weight_bits: Sequence[int] = WEIGHT_BITS,
    activation_bits: Sequence[int] = ACTIVATION_BITS,
    progress: Progress | None = None,
    seed: int = 0,
    tolerance: float = 0.1,
    maximum_probes: int = 8,
    rounded: Mapping[tuple[str, int], Mapping[str, Tensor]] | None = None,
) -> Problem:
    """What is analyzed, checked."""
    from qcompiler.sensitivity.candidates import Candidates
    from qcompiler.sensitivity.problem import Problem, checked_labels, checked_samples

    if graph.stage is not Stage.CALIBRATED:
        raise InternalError(f"graph {graph.name} is in stage {graph.stage.value}, not calibrated")
    for kind, bits, legal in (("weights", weight_bits, WEIGHT_BITS), ("activations", activation_bits, ACTIVATION_BITS)):
        wrong = sorted(set(bits) - set(legal))
        if wrong:
            remedy = f"choose of {', '.join(map(str, legal))}"
            raise CompileError("SENS007", "sensitivity", f"{kind} of {wrong[0]} bits have no quantizer", remedy)
    arrays = checked_samples(graph, samples)
    checked = checked_labels(graph, labels, len(arrays[0]))
    candidates = Candidates(graph, tuple(sorted(set(weight_bits))), tuple(sorted(set(activation_bits))), rounded or {})
    return Problem(graph, arrays, checked, candidates, seed, tolerance, maximum_probes, progress or Silent())


def open_measured(problem: Problem, metric: str, cache: Path | None) -> Measured:
    """What is known already in the folder ``cache``; metrics that are measured together share it."""
    from qcompiler.sensitivity.cache import Measured, cache_key

    if cache is None:
        return Measured(None)
    candidates = problem.candidates
    settings: tuple[object, ...] = ("distances",)  # whose units name the bits
    arrays = list(problem.samples)
    if metric not in DISTANCES:
        family = "gradients" if metric in GRADIENTS else metric
        settings = (family, candidates.weight_bits, candidates.activation_bits, problem.seed, problem.labels is not None)
        arrays += [] if problem.labels is None else [problem.labels]
    return Measured(cache, cache_key(problem.graph, arrays, settings))


def _scores(problem: Problem, metric: str, measured: Measured) -> Scores:
    from qcompiler.sensitivity.eigenvalue import eigenvalue_scores
    from qcompiler.sensitivity.fisher import fisher_harm
    from qcompiler.sensitivity.hessian import hessian_scores
    from qcompiler.sensitivity.output_distance import distance_scores
    from qcompiler.sensitivity.relevance import relevance_scores
    from qcompiler.sensitivity.sample_gradients import gradient_scores
    from qcompiler.sensitivity.taylor import taylor_harm

    if metric in DISTANCES:
        return distance_scores(problem, metric, measured)
    if metric in GRADIENTS:
        return gradient_scores(problem, (fisher_harm, taylor_harm), GRADIENTS.index(metric), measured)
    whole = {"hessian": hessian_scores, "hessian_top": eigenvalue_scores, "relevance": relevance_scores}
    return whole[metric](problem, measured)


def _require_finite(metric: str, scores: Scores) -> None:
    """SENS008 where a score is no number that a solver could use."""
    for name, by_bits in scores.means.items():
        for bits, score in by_bits.items():
            if not math.isfinite(score):
                problem = f"the score of {name} at {bits} bits is {score}"
                remedy = "check the samples and the model's parameters, or choose another metric"
                raise CompileError("SENS008", f"sensitivity ({metric})", problem, remedy)
