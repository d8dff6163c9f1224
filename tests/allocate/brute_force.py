"""Small problems of every kind, and their optima by looking at all assignments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

from qcompiler.allocate import Allocation, Limit, Variable, allocate
from qcompiler.errors import CompileError

Problem = dict[str, Any]


def cells(problem: Problem, resource: str) -> list[float]:
    """All numbers that the tables have for a resource."""
    found = [
        *itertools.chain(*problem["unary_costs"].get(resource, {}).values()),
        *(cell for m in problem.get("pair_costs", {}).get(resource, {}).values() for row in m for cell in row),
        *(cell for group in problem.get("peak_costs", {}).get(resource, ()) for row in group.values() for cell in row),
    ]
    return [cell for cell in found if cell is not None and cell != math.inf]


def total(problem: Problem, resource: str, choice: Mapping[str, str]) -> float | None:
    """A resource's total; None if some part cannot be had."""
    place = {v.name: v.choices.index(choice[v.name]) for v in problem["variables"]}
    parts = [[row[place[name]] for name, row in problem["unary_costs"].get(resource, {}).items()]]
    parts[0] += [m[place[a]][place[b]] for (a, b), m in problem.get("pair_costs", {}).get(resource, {}).items()]
    if resource in problem.get("peak_costs", {}):
        parts = [[row[place[name]] for name, row in group.items()] for group in problem["peak_costs"][resource]]
    if any(cell is None or cell == math.inf for part in parts for cell in part):
        return None
    exact = math.fsum if any(isinstance(cell, float) for cell in cells(problem, resource)) else sum
    return max(exact(part) for part in parts)


def resources(problem: Problem) -> list[str]:
    return [*{*problem["unary_costs"], *problem.get("pair_costs", {}), *problem.get("peak_costs", {})}]


def assignments(problem: Problem) -> Iterator[tuple[dict[str, str], dict[str, float]]]:
    """All assignments that are allowed, with their totals."""
    variables = problem["variables"]
    for words in itertools.product(*(v.choices for v in variables)):
        choice = {v.name: word for v, word in zip(variables, words, strict=True)}
        if any(len({choice[name] for name in tie}) > 1 for tie in problem.get("ties", ())):
            continue
        if any(choice[name] not in ({p} if isinstance(p, str) else p) for name, p in problem.get("pins", {}).items()):
            continue
        if any(choice[name] in ({p} if isinstance(p, str) else p) for name, p in problem.get("exclude", {}).items()):
            continue
        totals = {resource: total(problem, resource, choice) for resource in resources(problem)}
        if None in totals.values():
            continue
        if all(
            (limit.maximum is None or totals[limit.resource] <= limit.maximum)
            and (limit.minimum is None or totals[limit.resource] >= limit.minimum)
            for limit in problem.get("limits", ())
        ):
            yield choice, totals


def order(problem: Problem, choice: Mapping[str, str], totals: Mapping[str, float]) -> tuple[Any, ...]:
    """What is minimized: the objective, then bytes, then the places of choices in order of names.

    Tied variables count where the first of them is, in the order of its choices.
    """
    places = []
    seen: set[str] = set()
    for v in sorted(problem["variables"], key=lambda v: v.name):
        if v.name not in seen:
            places.append(v.choices.index(choice[v.name]))
            group = {v.name}
            for _ in problem["variables"]:
                group |= {name for tie in problem.get("ties", ()) if group & set(tie) for name in tie}
            seen |= group
    return (totals["sensitivity"], totals.get("weight_bytes", 0), places)


def brute_force(problem: Problem) -> tuple[dict[str, str], dict[str, float]] | None:
    return min(assignments(problem), key=lambda found: order(problem, *found), default=None)


WORDS = ("8", "4", "2", "w4a8")
SMALL = st.integers(-3, 3)
WIDE = st.integers(-(2**70), 2**70)
FLOATS = st.floats(-10, 10, allow_nan=False).map(lambda x: x or 0.0)
GRID = st.integers(-8, 8).map(lambda n: n / 10)


@st.composite
def problems(draw: st.DrawFn, numbers: st.SearchStrategy[Any] | None = None) -> Problem:
    """A small problem with sums, pairs, peaks, limits on all of them, ties, pins and exclusions."""
    count = draw(st.integers(1, 5))
    names = draw(st.permutations([f"v{i}" for i in range(count)]))
    variables = [Variable(n, tuple(draw(st.permutations(WORDS))[: draw(st.integers(1, 3))])) for n in names]
    kinds = [SMALL, GRID, FLOATS, WIDE] if numbers is None else [numbers]

    def row(count: int, kind: st.SearchStrategy[Any], holes: bool) -> list[Any]:
        hole = st.integers(0, 9).map(lambda n: n == 0) if holes else st.just(False)
        return [draw(st.sampled_from([None, math.inf])) if draw(hole) else draw(kind) for _ in range(count)]

    problem: Problem = {"variables": variables, "unary_costs": {}, "pair_costs": {}, "peak_costs": {}}
    for resource in ("sensitivity", "weight_bytes", "latency_ns"):
        if resource == "sensitivity" or draw(st.booleans()):
            kind, holes = draw(st.sampled_from(kinds)), draw(st.integers(0, 3)) == 0
            problem["unary_costs"][resource] = {v.name: row(len(v.choices), kind, holes) for v in variables}
            for _ in range(draw(st.integers(0, 3))):
                a, b = draw(st.sampled_from(variables)), draw(st.sampled_from(variables))
                holes = draw(st.integers(0, 2)) == 0
                matrix = [row(len(b.choices), kind, holes) for _ in a.choices]
                problem["pair_costs"].setdefault(resource, {})[a.name, b.name] = matrix
    if draw(st.booleans()):
        kind = draw(st.sampled_from(kinds))
        groups = draw(st.lists(st.sets(st.sampled_from(variables), min_size=1), min_size=1, max_size=3))
        ordered = [sorted(group, key=lambda v: v.name) for group in groups]
        problem["peak_costs"]["peak"] = [{v.name: row(len(v.choices), kind, False) for v in group} for group in ordered]
    some = list(itertools.islice(assignments(problem), 40))
    limits = []
    for resource in resources(problem):
        for end in ("maximum", "minimum")[: 1 if resource == "peak" else 2]:
            if some and draw(st.integers(0, 2)) == 0:
                value = draw(st.sampled_from(some))[1][resource]
                value += draw(st.sampled_from([0, 0, 0, -1, 1] if isinstance(value, int) else [0.0, 0.0, -1e-9, 0.25]))
                limits.append(Limit(resource, **{end: value}))
    problem["limits"] = limits
    if draw(st.integers(0, 3)) == 0:
        problem["ties"] = draw(st.lists(st.lists(st.sampled_from(names), min_size=1, max_size=3), max_size=2))
    for kind in ("pins", "exclude"):
        if draw(st.integers(0, 3)) == 0:
            v = draw(st.sampled_from(variables))
            problem[kind] = {v.name: draw(st.one_of(st.sampled_from(v.choices), st.sets(st.sampled_from(v.choices), min_size=1)))}
    return problem


def found_or_error(problem: Problem, **options: Any) -> Allocation | CompileError:
    try:
        return allocate(**problem, **options)
    except CompileError as error:
        return error
