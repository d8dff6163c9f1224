"""Allocation against all assignments, one by one."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.allocate import Allocation, Limit, Variable, allocate, pareto, program, ranked, search
from qcompiler.errors import CompileError

from .brute_force import (
    SMALL,
    WORDS,
    Problem,
    assignments,
    brute_force,
    cells,
    found_or_error,
    order,
    problems,
    resources,
    total,
)


@contextmanager
def small_steps(wanted: bool) -> Iterator[None]:
    """Cores of a single column, rows loosened to 3 bits and int64 narrowed to 12: what large problems go through."""
    with ExitStack() as stack:
        if wanted:
            for module, name, value in ((search, "FIRST_CORE", 1), (program, "LOOSE", 3), (program, "WIDTH", 12)):
                stack.enter_context(mock.patch.object(module, name, value))
        yield


@pytest.mark.parametrize("small", [False, True])
@settings(max_examples=100, deadline=None)
@given(problem=problems())
def test_equal_to_brute_force(small: bool, problem: Problem) -> None:
    with small_steps(small):
        found = found_or_error(problem)
    expected = brute_force(problem)
    if expected is None:
        assert isinstance(found, CompileError)
        assert found.code in ("ALLOC001", "ALLOC002")
        return
    assert isinstance(found, Allocation), found
    assert found.choice in [choice for choice, _ in assignments(problem)]
    assert (found.status, found.gap) == ("optimal", 0.0)
    largest = max(abs(cell) for cell in cells(problem, "sensitivity"))
    assert found.objective == pytest.approx(expected[1]["sensitivity"], rel=0, abs=1e-9 * largest)
    assert found.totals == {r: total(problem, r, found.choice) for r in resources(problem)}


def test_one_unit_beside_two_to_the_54th() -> None:
    """The total is odd, so no double is equal to it: found at random, where the bound below it was taken for the total."""
    scores = {"v0": [0, 0, 0], "v1": [0], "v2": [0], "v3": [0, 0, 0], "v4": [0, 1273969, -195808679450891]}
    total = 18014398509481013
    variables = [Variable(name, WORDS[: len(cells)]) for name, cells in scores.items()]
    with small_steps(True):
        found = allocate(
            variables,
            {"sensitivity": scores},
            {"sensitivity": {("v0", "v2"): [[total], [None], [None]]}},
            [Limit("sensitivity", maximum=total), Limit("sensitivity", minimum=total)],
            pins={"v0": "8"},
        )
    assert (found.status, found.objective, found.bound, found.gap) == ("optimal", total, total, 0.0)


def test_what_presolve_took_for_infeasible() -> None:
    """A peak of more than 64 bits beside a limit on floats: found at random, where CP-SAT denied that there is a solution."""
    words = {"v2": ("8", "4"), "v0": ("8", "4", "2"), "v3": ("8",), "v1": ("2", "8", "4"), "v4": ("8",)}
    unary = {"v0": [-0.3, 0.0, 0.0], "v1": [0.0, 0.0, 0.0], "v2": [0.7, -0.4], "v3": [0.0], "v4": [0.0]}
    pairs = {("v1", "v4"): [[None], [-0.5], [0.3]], ("v2", "v1"): [[-0.6, 0.2, 0.0], [0.0, 0.0, -0.3]]}
    problem: Problem = {
        "variables": [Variable(name, choices) for name, choices in words.items()],
        "unary_costs": {"sensitivity": unary},
        "pair_costs": {"sensitivity": pairs},
        "peak_costs": {"peak": [{"v0": [0, 0, 5347996391899137], "v1": [0, 0, -85898000089601998849], "v2": [0, 1]}]},
        "limits": [Limit("peak", maximum=0), Limit("sensitivity", maximum=-0.15000000000000002)],
    }
    found, expected = found_or_error(problem), brute_force(problem)
    assert isinstance(found, Allocation), found
    assert expected is not None
    assert (found.choice, found.status) == (expected[0], "optimal")


@pytest.mark.parametrize("small", [False, True])
@settings(max_examples=100, deadline=None)
@given(problem=problems(SMALL))
def test_equals_are_told_apart(small: bool, problem: Problem) -> None:
    with small_steps(small):
        found = found_or_error(problem)
    expected = brute_force(problem)
    assert (expected is None) == isinstance(found, CompileError)
    if expected is not None and isinstance(found, Allocation):
        assert found.choice == expected[0]


@pytest.mark.parametrize("small", [False, True])
@settings(max_examples=60, deadline=None)
@given(problem=problems(SMALL))
def test_ranked_is_the_order_of_all(small: bool, problem: Problem) -> None:
    expected = sorted(assignments(problem), key=lambda found: order(problem, *found))
    if not expected:
        return
    with small_steps(small):
        found = ranked(**problem, count=5)
    assert [allocation.choice for allocation in found] == [choice for choice, _ in expected[:5]]
    assert {allocation.status for allocation in found} == {"optimal"}


@settings(max_examples=40, deadline=None)
@given(problems(SMALL), st.randoms(use_true_random=False))
def test_the_order_of_a_problem_does_not_matter(problem: Problem, shuffle: random.Random) -> None:
    found = found_or_error(problem, seed=1)
    if isinstance(found, CompileError):
        return
    shuffled = dict(problem)
    shuffled["variables"] = shuffle.sample(problem["variables"], len(problem["variables"]))
    for costs in ("unary_costs", "pair_costs"):
        shuffled[costs] = {r: dict(shuffle.sample(sorted(t.items()), len(t))) for r, t in reversed(problem[costs].items())}
    again = allocate(**shuffled)
    assert (again.choice, again.totals) == (found.choice, found.totals)


@settings(max_examples=80, deadline=None)
@given(problems(st.integers(-3, 3)))
def test_a_clash_is_minimal_and_says_what_is_possible(problem: Problem) -> None:
    found = found_or_error(problem)
    if not (isinstance(found, CompileError) and found.code == "ALLOC002"):
        return

    def least(resource: str, end: str, limits: Sequence[Limit]) -> int | None:
        values = [totals[resource] for _, totals in assignments(problem | {"limits": limits})]
        return int(min(values) if end == "most" else max(values)) if values else None

    clash = []
    line = re.compile(r"(\w+) at (most|least) (\S+): the \w+ possible is (\S+?)(?:, within the other limits (\S+))?")
    for text in found.problem.splitlines():
        match = line.fullmatch(text)
        if match is None:
            continue
        resource, end, limit, alone, within = match.groups()
        clash.append(Limit(resource, **{"maximum" if end == "most" else "minimum": int(limit)}))
        others = [other for other in problem["limits"] if other != clash[-1]]
        assert int(alone) == least(resource, end, [])
        if "other limits clash as well" not in found.problem:
            assert int(within or alone) == least(resource, end, others)
    assert clash
    assert not list(assignments(problem | {"limits": clash}))
    for limit in clash:
        assert list(assignments(problem | {"limits": [other for other in clash if other != limit]}))


@settings(max_examples=25, deadline=None)
@given(problems(st.integers(0, 9)))
def test_pareto_is_what_no_allocation_improves(problem: Problem) -> None:
    problem["unary_costs"].setdefault("weight_bytes", {v.name: list(range(len(v.choices))) for v in problem["variables"]})
    everything = [(t["weight_bytes"], t["sensitivity"]) for _, t in assignments(problem)]
    if not everything:
        return
    frontier = {
        (size, min(score for other, score in everything if other <= size))
        for size, score in everything
        if not any((other < size and s <= score) or (other <= size and s < score) for other, s in everything)
    }
    points = pareto(**problem, resource="weight_bytes", points=100)
    assert [(p.totals["weight_bytes"], p.objective) for p in points] == sorted(frontier)
    few = pareto(**problem, resource="weight_bytes", points=3)
    assert len(few) <= 3
    assert {(p.totals["weight_bytes"], p.objective) for p in few} <= frontier
    assert (few[0].choice, few[-1].choice) == (points[0].choice, points[-1].choice)
