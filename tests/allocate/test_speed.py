"""What an allocation may take."""

from __future__ import annotations

import statistics
import time

import pytest

from qcompiler.allocate import allocate

from .networks import COSTS, TWO, layers


@pytest.mark.parametrize(
    ("count", "limits", "gap", "seconds"), [(53, 1, 0.0, 0.05), (53, 4, 0.0, 0.5), (1000, 1, 0.0, 1.0), (1000, 4, 1e-3, 3.0)]
)
def test_speed(count: int, limits: int, gap: float, seconds: float) -> None:
    allocate(TWO, COSTS)  # imports
    times = []
    for seed in range(3):
        problem = layers(count, limits, seed)
        begin = time.perf_counter()
        found = allocate(**problem, gap=gap)
        times.append(time.perf_counter() - begin)
        assert found.gap <= gap
        assert gap or found.status == "optimal"
    assert statistics.median(times) < 4 * seconds  # 0.02, 0.05, 0.2 and 0.4 s here; slack for a busy machine
