"""Examples: exact limits, numbers of any size, ties between equals, effort and gaps."""

from __future__ import annotations

import math
import random
import re

import numpy as np
import pytest

from qcompiler.allocate import Limit, Variable, allocate

from .brute_force import brute_force
from .networks import COSTS, TWO, layers


def test_the_example_of_the_documentation() -> None:
    costs = {"sensitivity": COSTS["sensitivity"], "weight_bytes": {"conv1": [100, 50], "conv2": [200, 100]}}
    found = allocate(TWO, costs, limits={"weight_bytes": 220})
    assert found.choice == {"conv1": "8", "conv2": "4"}
    assert found.totals == {"sensitivity": 0.1 + 0.2, "weight_bytes": 200}
    assert (found.objective, found.bound, found.gap, found.status) == (0.1 + 0.2, 0.1 + 0.2, 0.0, "optimal")
    assert found.seconds > 0
    assert re.fullmatch(r"OR-Tools CP-SAT \d+\.\d+\.\d+", found.solver)


def test_products_ties_peaks_and_a_missing_kernel_together() -> None:
    """A network of three layers; the third shares its bits with the first, and 4 bit inputs of conv2 have one kernel."""
    names = ("a1", "a2", "conv1", "conv2", "conv3")
    found = allocate(
        [Variable(name, ("8", "4")) for name in names],
        {"sensitivity": {name: [0, 3] for name in names} | {"conv2": [0, 1]}},
        {
            "latency_ns": {
                ("a1", "conv1"): [[90, 80], [70, 30]],
                ("conv2", "a2"): [[90, None], [60, 20]],
                ("a2", "conv3"): [[90, 80], [70, 30]],
            },
            "sensitivity": {("conv1", "conv2"): [[0, 0], [0, -1]], ("conv1", "conv3"): [[0, 0], [0, -4]]},
        },
        {"latency_ns": 120, "live_bytes": 24},
        peak_costs={"live_bytes": [{"a1": [16, 8]}, {"a1": [16, 8], "a2": [16, 8]}]},
        ties=[("conv1", "conv3")],
    )
    assert found.choice == {"a1": "4", "a2": "4", "conv1": "4", "conv2": "4", "conv3": "4"}
    assert found.totals == {"latency_ns": 80, "live_bytes": 16, "sensitivity": 8}


def test_an_example_is_not_rounded() -> None:
    """0.1 + 0.2 is 0.30000000000000004: over 0.3, and within itself."""
    costs = {"sensitivity": {"a": [0, 1], "b": [0, 1]}, "bits": {"a": [0.1, 0.0], "b": [0.2, 0.0]}}
    variables = [Variable("a", ("8", "4")), Variable("b", ("8", "4"))]
    assert allocate(variables, costs, limits={"bits": 0.1 + 0.2}).objective == 0
    assert allocate(variables, costs, limits={"bits": 0.3}).objective == 1


@pytest.mark.parametrize("scale", [1, 2**40, 2**70, 10**40, 2.0**-900, 1e290])
def test_numbers_of_any_size(scale: float) -> None:
    """Sums beyond int64 are compared exactly: each limit is the total of one choice, or one less than it."""
    draw = random.Random(5)
    variables = [Variable(f"v{i}", ("8", "4", "2")) for i in range(8)]
    rows = {v.name: [draw.randrange(1, 10**6) for _ in range(3)] for v in variables}
    scores = {v.name: [draw.randrange(1, 10**6) * scale for _ in range(3)] for v in variables}
    for _ in range(3):
        limit = sum(draw.choice(row) for row in rows.values()) * scale
        costs = {"sensitivity": scores, "bytes": {name: [cell * scale for cell in row] for name, row in rows.items()}}
        problem = {"variables": variables, "unary_costs": costs, "limits": [Limit("bytes", limit)]}
        expected = brute_force(problem)
        assert expected is not None
        assert allocate(**problem).totals == expected[1]
        problem["limits"] = [Limit("bytes", limit), Limit("bytes", minimum=limit)]
        expected = brute_force(problem)
        assert expected is not None
        assert allocate(**problem).totals["bytes"] == limit


@pytest.mark.parametrize("offset", [2**54 + 1, -(2**80), 2**200])
def test_an_offset_changes_nothing(offset: int) -> None:
    """No double tells small numbers beside large ones apart: what they hide is minimized all the same."""
    draw = random.Random(3)
    variables = [Variable(f"v{i:03}", ("8", "4", "2")) for i in range(200)]
    names = [v.name for v in variables]
    scores = {name: [0, draw.randrange(1, 10**6), draw.randrange(10**6, 10**7)] for name in names}
    size = {name: [4 * b, 2 * b, b] for name, b in ((name, draw.randrange(1, 10**5)) for name in names)}
    limit = sum(cells[0] for cells in size.values()) * 5 // 8
    plain = allocate(variables, {"sensitivity": scores, "weight_bytes": size}, limits={"weight_bytes": limit})
    scores["v000"] = [offset + score for score in scores["v000"]]
    found = allocate(variables, {"sensitivity": scores, "weight_bytes": size}, limits={"weight_bytes": limit})
    assert (plain.status, found.status, found.choice) == ("optimal", "optimal", plain.choice)
    assert (found.objective, found.bound) == (plain.objective + offset, plain.objective + offset)


def test_small_floats_beside_large_ones() -> None:
    """A tie in the large numbers is decided by those that are 2^-100 of them."""
    variables = [Variable(name, ("8", "4")) for name in "abc"]
    tiny = 2.0**-100
    costs = {
        "sensitivity": {"a": [0, 1], "b": [0, 1], "c": [0, 1]},
        "bytes": {"a": [1.0, 0.0], "b": [tiny, 0.0], "c": [-1.0, -1.0]},
    }
    assert allocate(variables, costs, limits={"bytes": tiny}).choice == {"a": "8", "b": "8", "c": "8"}
    assert allocate(variables, costs, limits={"bytes": tiny / 2}).choice == {"a": "8", "b": "4", "c": "8"}
    assert allocate(variables, costs, limits={"bytes": -tiny}).choice == {"a": "4", "b": "8", "c": "8"}


def test_numbers_of_numpy() -> None:
    costs = {
        "sensitivity": {name: np.array(row, dtype=np.float32) for name, row in COSTS["sensitivity"].items()},
        "weight_bytes": {name: np.array(row) for name, row in COSTS["weight_bytes"].items()},
    }
    found = allocate(TWO, costs, limits={"weight_bytes": np.int64(2000)})
    assert found.choice == {"conv1": "8", "conv2": "4"}
    assert found.totals == {"sensitivity": float(np.float32(0.1)) + float(np.float32(0.2)), "weight_bytes": 2000}
    assert {type(value) for value in found.totals.values()} == {float, int}


def test_the_resources_that_decide_between_equals() -> None:
    variables = [Variable(name, ("8", "4", "2")) for name in ("a", "b")]
    costs = {
        "sensitivity": {"a": [1, 1, 2], "b": [1, 1, 1]},
        "weight_bytes": {"a": [3, 2, 1], "b": [2, 2, 3]},
        "latency_ns": {"a": [1, 1, 1], "b": [9, 2, 2]},
    }
    assert allocate(variables, costs).choice == {"a": "4", "b": "8"}
    assert allocate(variables, costs, tie_break=("weight_bytes", "latency_ns")).choice == {"a": "4", "b": "4"}
    assert allocate(variables, costs, tie_break="latency_ns").choice == {"a": "8", "b": "4"}
    assert allocate(variables, costs, tie_break=()).choice == {"a": "8", "b": "8"}
    assert allocate(variables, costs, objective="weight_bytes").choice == {"a": "2", "b": "8"}
    equals = [Variable(f"v{i:03}", ("8", "4")) for i in range(100)]
    same = {"sensitivity": {v.name: [0, 1] for v in equals}, "weight_bytes": {v.name: [2, 1] for v in equals}}
    found = allocate(equals[::-1], same, limits={"weight_bytes": 150})
    assert [found.choice[v.name] for v in equals] == ["8"] * 50 + ["4"] * 50


def test_the_seed_does_not_matter() -> None:
    problem = layers(40, 2)
    found = [allocate(**problem, seed=seed).choice for seed in (0, 0, 7)]
    assert found[0] == found[1] == found[2]


def test_content_with_a_gap() -> None:
    problem = layers(200, 4)
    best, found = allocate(**problem), allocate(**problem, gap=0.01)
    assert best.status == "optimal"
    assert found.status == "feasible"
    assert found.bound <= best.objective <= found.objective
    assert found.gap == pytest.approx((found.objective - found.bound) / found.objective)
    assert 0 < found.gap <= 0.01


def test_little_effort_gives_less_and_says_so() -> None:
    problem = layers(200, 4, level=0.1)
    best, found = allocate(**problem), allocate(**problem, time_limit=0.02)
    assert found.status == "feasible"
    assert found.bound <= best.objective <= found.objective
    again = allocate(**problem, time_limit=0.02)
    assert (again.choice, again.bound) == (found.choice, found.bound)  # the same, however busy the machine is


def test_limits_that_limit_nothing() -> None:
    endless = [Limit("weight_bytes", math.inf, -math.inf)]
    assert allocate(TWO, COSTS, limits=endless).choice == {"conv1": "8", "conv2": "8"}
