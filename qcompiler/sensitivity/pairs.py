"""What two tensors cost together beyond what each costs alone: the distance of both quantized, less the two single ones.

Deng et al., "CLADO: Mixed-Precision Quantization with Cross-Layer Dependencies", arXiv 2307.05657. Interactions are measured, so
they may have either sign; a solver adds one to the cost where both choices are made. Unit: that of the metric.

Errors: SENS009 a pair names what is not a candidate; the others: see ``analyze.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from qcompiler.errors import CompileError
from qcompiler.ir.graph import WEIGHTED, Array, Graph, Node
from qcompiler.progress import Progress
from qcompiler.sensitivity.analyze import (
    ACTIVATION_BITS,
    DISTANCES,
    WEIGHT_BITS,
    make_problem,
    open_measured,
    require_metric,
)

if TYPE_CHECKING:
    from qcompiler.sensitivity.candidates import Candidates

Interactions = dict[tuple[str, int, str, int], float]
"""``(a, bits of a, b, bits of b)`` to the interaction."""


def pairwise_sensitivities(
    graph: Graph,
    samples: Sequence[Array],
    pairs: Sequence[tuple[str, str]] | None = None,
    metric: str = "mse",
    weight_bits: Sequence[int] = WEIGHT_BITS,
    activation_bits: Sequence[int] = ACTIVATION_BITS,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Interactions:
    """The interactions of every choice of bits for ``pairs`` of names, by default all of :func:`adjacent_pairs`.

    Names are those of a sensitivity table; ``metric``: "kl", "mse" or "sqnr". ``samples`` and ``cache`` as for
    ``analyze.sensitivities``; what that measured there is not measured again.
    """
    from qcompiler.sensitivity.output_distance import measure_together

    require_metric(metric, DISTANCES)
    problem = make_problem(graph, samples, None, weight_bits, activation_bits, progress)
    candidates = problem.candidates
    pairs = adjacent_pairs(graph, candidates) if pairs is None else pairs
    bits = dict.fromkeys(candidates.weights, candidates.weight_bits)
    bits |= dict.fromkeys(candidates.classes, candidates.activation_bits)
    for unknown in (name for pair in pairs for name in pair if name not in bits):
        remedy = f"name weights or the first values of activation classes: {', '.join(bits)}"
        raise CompileError("SENS009", "sensitivity", f"a pair names {unknown!r}, which has no choice of bits", remedy)
    joint = [((a, p), (b, q)) for a, b in pairs for p, q in product(bits[a], bits[b])]
    singles = list(dict.fromkeys((choice,) for both in joint for choice in both))
    with open_measured(problem, metric, cache) as measured:
        found = measure_together(problem, metric, [*singles, *joint], measured)
    distance = {together: sums.mean for together, sums in zip([*singles, *joint], found, strict=True)}
    return {(*a, *b): distance[a, b] - distance[a,] - distance[b,] for a, b in joint}


def adjacent_pairs(graph: Graph, candidates: Candidates) -> list[tuple[str, str]]:
    """Each layer's input and weights; and the weights of layers between which there is no other layer.

    Between the latter there may be functions, moves, and one operator of several values, such as an addition.
    """
    classes = {member: name for name, group in candidates.classes.items() for member in group}
    found: list[tuple[str, str]] = []
    for node in graph.nodes:
        if node.op in WEIGHTED and node.inputs[1] in candidates.weights:
            if node.inputs[0] in classes:
                found.append((classes[node.inputs[0]], node.inputs[1]))
            found += [(node.inputs[1], reader.inputs[1]) for reader in _next_layers(graph, node.output.name, joins=1)]
    return [(a, b) for a, b in dict.fromkeys(found) if a != b and b in candidates.weights]


def _next_layers(graph: Graph, name: str, joins: int) -> Iterator[Node]:
    """The layers with weights that read ``name`` with at most ``joins`` operators of several values between."""
    for node in graph.consumers[name]:
        left = joins - (sum(i in graph.values for i in dict.fromkeys(node.inputs)) > 1)
        if node.op in WEIGHTED:
            yield node
        elif left >= 0:
            yield from _next_layers(graph, node.output.name, left)
