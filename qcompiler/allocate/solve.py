"""Allocation: one choice for every variable, at the least total of one resource within limits on others.

    layers = [Variable("conv1", ("8", "4")), Variable("conv2", ("8", "4"))]
    found = allocate(
        layers,
        {"sensitivity": {"conv1": [0.1, 0.9], "conv2": [0.1, 0.2]}, "weight_bytes": {"conv1": [100, 50], "conv2": [200, 100]}},
        limits={"weight_bytes": 220},
    )
    found.choice  # {"conv1": "8", "conv2": "4"}
    found.totals  # {"sensitivity": 0.30000000000000004, "weight_bytes": 200}

Integer totals are exact; a total of floats is their correctly rounded sum, and no limit is exceeded by as much as its last digit.
Equal optima are told apart by ``tie_break``'s resources, then by the first choices in the order of the variables' names, so one
problem has one answer, whatever order it is written in. The effort is counted in deterministic time, not read off a clock.

Errors: ALLOC001 nothing can be chosen even without limits, ALLOC002 the limits clash, ALLOC008 the effort ends before anything
is found; ``tables.py`` has those of wrong numbers and names.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from qcompiler.allocate.clashes import Problem, explain
from qcompiler.allocate.columns import relative_gap
from qcompiler.allocate.program import solver_name
from qcompiler.allocate.search import minimize_in_turn
from qcompiler.allocate.tables import Limit, Number, Tables, Variable
from qcompiler.errors import CompileError, InternalError

UnaryCosts = Mapping[str, Mapping[str, Sequence[Any]]]
PairCosts = Mapping[str, Mapping[tuple[str, str], Sequence[Sequence[Any]]]]
PeakCosts = Mapping[str, Sequence[Mapping[str, Sequence[Any]]]]
Limits = Mapping[str, Number] | Iterable[Limit]
Words = Mapping[str, str | Collection[str]]

TIE_BREAK: Final = ("sensitivity", "weight_bytes")


@dataclass(frozen=True)
class Allocation:
    """``choice`` of every variable, and the total of every resource with it.

    ``status``: "optimal" if no assignment has a smaller ``objective``, "feasible" if that was not proven; no total is below
    ``bound``, and ``gap`` is how far it is from there, relative. (Floats are minimized in steps of 2^-50 of the largest possible
    total for 1,000 variables, 2^-40 for a million.) ``seconds`` are those of a clock; ``solver`` has its name and version.
    """

    choice: Mapping[str, str]
    totals: Mapping[str, Number]
    objective: Number
    status: Literal["optimal", "feasible"]
    bound: Number
    gap: float
    seconds: float
    solver: str


def allocate(
    variables: Iterable[Variable],
    unary_costs: UnaryCosts,
    pair_costs: PairCosts | None = None,
    limits: Limits = (),
    objective: str = "sensitivity",
    *,
    peak_costs: PeakCosts | None = None,
    ties: Iterable[Iterable[str]] = (),
    pins: Words | None = None,
    exclude: Words | None = None,
    tie_break: str | Sequence[str] = TIE_BREAK,
    gap: float = 0.0,
    seed: int = 0,
    time_limit: float = 5.0,
    where: str = "allocation",
) -> Allocation:
    """The assignment with the least total of ``objective`` within ``limits``.

    unary_costs: by resource and variable, one number per choice, for every variable that no pair of this resource names.
    pair_costs: by resource and two variables (a, b), a matrix [choices of a, choices of b]; any number of such tables and signs.
    peak_costs: by resource, groups of variables with numbers; the total is the largest of the groups' sums.
    None or inf in a table: this choice, or pair of choices, cannot be had.
    limits: several at once; a dict has maxima by resource, a list of :class:`Limit` minima as well.
    ties: variables that take the same choice, out of those that all of them have.
    pins, exclude: by variable, the choices that it may, or may not, take.
    tie_break: the resources that decide between equals, in turn, as far as there are tables for them.
    gap: relative distance from the optimum to be content with. time_limit: in the solver's deterministic seconds, each
        1 to 4 s of one core; the time that the linear relaxation takes comes on top.
    where: what errors name as their place.

    Raises CompileError, ALLOC001 to ALLOC009.
    """
    problem = _problem(variables, unary_costs, pair_costs, peak_costs, ties, pins, exclude, seed, time_limit, where)
    return _allocate(problem, problem.tables.checked_limits(limits), objective, tie_break, gap)


def pareto(
    variables: Iterable[Variable],
    unary_costs: UnaryCosts,
    pair_costs: PairCosts | None = None,
    limits: Limits = (),
    objective: str = "sensitivity",
    *,
    resource: str,
    points: int = 10,
    peak_costs: PeakCosts | None = None,
    ties: Iterable[Iterable[str]] = (),
    pins: Words | None = None,
    exclude: Words | None = None,
    gap: float = 0.0,
    seed: int = 0,
    time_limit: float = 5.0,
    where: str = "allocation",
) -> tuple[Allocation, ...]:
    """At most ``points`` allocations between the least of ``resource`` and the least of ``objective``; each is better in one.

    The limit on ``resource`` goes from end to end in even steps; ``time_limit`` is for each. Otherwise as :func:`allocate`.
    """
    problem = _problem(variables, unary_costs, pair_costs, peak_costs, ties, pins, exclude, seed, time_limit, where)
    kept = problem.tables.checked_limits(limits)
    problem.tables.check_resource(resource, "this resource is swept")
    high = _allocate(problem, kept, objective, resource, gap)
    least = _allocate(problem, kept, resource, objective, gap).objective
    found = [high]
    for step in range(points - 2, -1, -1):
        limit = least + (high.totals[resource] - least) * step / (points - 1) if step else least
        if limit < found[-1].totals[resource]:
            point = _allocate(problem, (*kept, Limit(resource, maximum=limit)), objective, resource, gap)
            found = [other for other in found if other.objective < point.objective] + [point]
    return tuple(reversed(found))


def ranked(
    variables: Iterable[Variable],
    unary_costs: UnaryCosts,
    pair_costs: PairCosts | None = None,
    limits: Limits = (),
    objective: str = "sensitivity",
    *,
    count: int,
    peak_costs: PeakCosts | None = None,
    ties: Iterable[Iterable[str]] = (),
    pins: Words | None = None,
    exclude: Words | None = None,
    tie_break: str | Sequence[str] = TIE_BREAK,
    gap: float = 0.0,
    seed: int = 0,
    time_limit: float = 5.0,
    where: str = "allocation",
) -> tuple[Allocation, ...]:
    """The best ``count`` assignments, or all where there are fewer, best first; for what only a run can tell apart.

    ``time_limit`` is for each. Otherwise as :func:`allocate`, whose assignment is the first.
    """
    problem = _problem(variables, unary_costs, pair_costs, peak_costs, ties, pins, exclude, seed, time_limit, where)
    kept = problem.tables.checked_limits(limits)
    found = [_allocate(problem, kept, objective, tie_break, gap)]
    while len(found) < count:
        another = _another(problem, kept, objective, tie_break, gap, [allocation.choice for allocation in found])
        if another is None:
            break
        found.append(another)
    return tuple(found)


def _problem(
    variables: Iterable[Variable],
    unary_costs: UnaryCosts,
    pair_costs: PairCosts | None,
    peak_costs: PeakCosts | None,
    ties: Iterable[Iterable[str]],
    pins: Words | None,
    exclude: Words | None,
    seed: int,
    time_limit: float,
    where: str,
) -> Problem:
    tables = Tables.of(variables, unary_costs, pair_costs or {}, peak_costs or {})
    allowed = tables.allowed(pins or {}, exclude or {})
    tied = tuple(map(tuple, tables.tied(ties)))
    wishes = [f"{name}={words if isinstance(words, str) else '|'.join(sorted(words))}" for name, words in (pins or {}).items()]
    wishes += [
        f"{name}!={words if isinstance(words, str) else '|'.join(sorted(words))}" for name, words in (exclude or {}).items()
    ]
    return Problem(tables, allowed, tied, tuple(wishes), where, time_limit, seed)


def _allocate(
    problem: Problem, limits: tuple[Limit, ...], objective: str, tie_break: str | Sequence[str], gap: float
) -> Allocation:
    found = _another(problem, limits, objective, tie_break, gap, ())
    if found is None:
        text = f"within a time limit of {problem.time_limit:g} s no assignment was found, nor proven that there is none"
        raise CompileError("ALLOC008", problem.where, text, "raise time_limit, or some limit")
    return found


def _another(
    problem: Problem,
    limits: tuple[Limit, ...],
    objective: str,
    tie_break: str | Sequence[str],
    gap: float,
    known: Sequence[Mapping[str, str]],
) -> Allocation | None:
    """The best assignment that is none of ``known``; None if none is found. An error says why there is none at all."""
    solver = solver_name()
    begin = time.perf_counter()
    tables = problem.tables
    tables.check_resource(objective, "this resource is to be minimized")
    others = (tie_break,) if isinstance(tie_break, str) else tie_break
    order = list(dict.fromkeys([objective, *(name for name in others if name in tables.levels)]))
    space = problem.space({*order, *(limit.resource for limit in limits)})
    if space.emptied:
        raise explain(problem, space, limits)
    objectives = [space.objective(name) for name in order]
    model = space.model(limits).within(space.unlike(choice) for choice in known)
    outcome = minimize_in_turn(model, objectives, problem.effort(), gap)
    if outcome.state == "infeasible" and not known:
        raise explain(problem, space, limits)
    if not outcome.taken:
        return None
    choice = space.choice(outcome.taken)
    totals = {name: tables.total(name, choice) for name in sorted(tables.levels)}
    for limit in limits:
        total = totals[limit.resource]
        if total > (limit.maximum if limit.maximum is not None else total) or total < (limit.minimum or total):
            raise InternalError(f"allocation: {limit} is not kept: {total}")
    value = totals[objective]
    status: Literal["optimal", "feasible"] = "optimal" if outcome.state == "optimal" else "feasible"
    bound = value if status == "optimal" else min(value, objectives[0].number(outcome.bound))
    return Allocation(
        choice={variable.name: variable.choices[place] for variable, place in zip(tables.variables, choice, strict=True)},
        totals=totals,
        objective=value,
        status=status,
        bound=bound,
        gap=relative_gap(value, bound),
        seconds=time.perf_counter() - begin,
        solver=solver,
    )
