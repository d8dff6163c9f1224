"""From the latencies of kernels to that of a network: their sum, times a factor, and something for every call.

A kernel is measured among those of its network; what the sum leaves out is the entry that hands it its arguments, and that the
library's constants are laid out otherwise. Both coefficients are fitted on whole networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from qcompiler.backend.image import DENSE
from qcompiler.backend.tile_table import TileTable
from qcompiler.cost.latency_table import LatencyTable
from qcompiler.cost.trace import kernel_keys
from qcompiler.ir.graph import Graph

EXPECTED: Final = (1.0, 0.0)
"""The factor and the ns per call of a table that leaves nothing out."""
DEVIATION: Final = (0.1, 100.0)
"""How far they are from that, as standard deviations."""
NOISE: Final = 0.02
"""Relative standard deviation of a measured latency."""


@dataclass(frozen=True)
class Observation:
    """A whole network: the sum of its ``calls`` kernels from a table, and what it takes, both in ns."""

    kernels_ns: float
    calls: int
    ns: float


@dataclass(frozen=True)
class Overhead:
    """``factor * kernels_ns + per_call_ns * calls``; ``relative_error``: root mean square on the networks of the fit."""

    factor: float = 1.0
    per_call_ns: float = 0.0
    relative_error: float = 0.0

    def ns(self, kernels_ns: float, calls: int) -> float:
        """A network's latency."""
        return self.factor * kernels_ns + self.per_call_ns * calls


@dataclass(frozen=True)
class Prediction:
    """``ns`` of one sample on one thread, from the integer input to the integer output; ``relative_error``: the fit's."""

    ns: float
    relative_error: float


def fit(observations: Sequence[Observation]) -> Overhead:
    """The most likely coefficients: least squares of relative deviations, together with those from ``EXPECTED``.

    Networks of one kind say little about which of the two coefficients it is; what is expected decides there.
    """
    measured = np.array([seen.ns for seen in observations], dtype=np.float64)
    seen = np.array([(seen.kernels_ns, seen.calls) for seen in observations], dtype=np.float64).reshape(-1, 2)
    relative = seen / measured[:, None]
    weights = NOISE / np.array(DEVIATION)
    rows = np.concatenate([relative, np.diag(weights)])
    wanted = np.concatenate([np.ones(len(measured)), weights * EXPECTED])
    coefficients, *_ = np.linalg.lstsq(rows, wanted, rcond=None)
    if coefficients[1] < 0:
        factor, *_ = np.linalg.lstsq(rows[:, :1], wanted, rcond=None)
        coefficients = np.append(factor, 0.0)
    error = float(np.sqrt(np.mean((relative @ coefficients - 1.0) ** 2))) if len(measured) else 0.0
    return Overhead(float(coefficients[0]), float(coefficients[1]), error)


def fit_table(table: LatencyTable) -> Overhead:
    """The overhead that the table's own whole passes show; none where it has no passes."""
    observations = []
    for whole in table.passes:
        keys = [key for key, count in whole.calls.items() for _ in range(count)]
        observations.append(Observation(table.ns(keys), len(keys), whole.ns))
    return fit(observations) if observations else Overhead()


def predict(
    graph: Graph,
    table: LatencyTable,
    overhead: Overhead | None = None,
    input_layout: str = DENSE,
    tiles: TileTable | None = None,
) -> Prediction:
    """The latency of an integer graph, of the table's target; nothing is compiled.

    ``overhead``: by default what :func:`fit_table` gives; ``tiles``: those with which the kernels were measured. Raises
    CompileError COST004 where the table lacks kernels.
    """
    keys = kernel_keys(graph, table.target, input_layout, tiles)
    found = fit_table(table) if overhead is None else overhead
    return Prediction(found.ns(table.ns(keys), len(keys)), found.relative_error)
