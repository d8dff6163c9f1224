"""The least value of an objective: CP-SAT on the columns that can matter, which the linear relaxation tells.

First a core: the columns nearest to the relaxation's optimum. Its solution is an upper limit, and every column that no better
solution can take is dropped. Where what remains is no more than the core, the solution is optimal; otherwise the core grows.
(Balas and Zemel, "An algorithm for large zero-one knapsack problems", 1980; Pisinger, "A minimal algorithm for the
multiple-choice knapsack problem", 1995; here with any rows and tables.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from qcompiler.allocate.columns import WIDTH, Columns, Mask, Model, Objective, Terms
from qcompiler.allocate.program import Answer, Effort, Program, State
from qcompiler.allocate.relaxation import Relaxation

FIRST_CORE: Final = 64
GROWTH: Final = 3
SHARE: Final = 0.5


@dataclass(frozen=True)
class Outcome:
    """``taken``: the column of each group; ``value`` and ``bound`` are in the objective's steps.

    ``rivals``: the columns that other solutions of the same value can take; None where there are none, or nothing is proven.
    """

    state: State
    taken: tuple[int, ...] = ()
    value: int = 0
    bound: float = float("-inf")
    rivals: Mask | None = None


def every_column(columns: Columns, taken: Iterable[int]) -> set[int]:
    """The columns of groups that are taken, and those of tables that follow."""
    found = set(taken)
    return found | {columns.first_end + k for k, (a, b) in enumerate(columns.ends) if a in found and b in found}


def minimize(model: Model, objective: Objective, effort: Effort, gap: float = 0.0, any_solution: bool = False) -> Outcome:
    """The optimum, or the best that the effort reaches; content with a relative ``gap``, or with ``any_solution``."""
    everything = model.tightened(model.left)
    if everything is None or any(not row.terms.columns for row in model.rows):
        return Outcome("infeasible")
    model = model.within(left=everything)
    relaxed = Relaxation.of(model, objective, effort.left)
    lower = math.ceil(max(relaxed.bound, -(2.0**62)))
    best: tuple[int, ...] = ()
    value, size, optimal = 0, FIRST_CORE, False
    exact: set[int] = set()

    def needed() -> Mask:
        """Columns that a solution no worse than the best can take."""
        mask = model.tightened(relaxed.distance <= value - relaxed.bound) if best else everything
        assert mask is not None  # it has ``best``
        return mask

    while True:  # another solution, no worse than the best so far; there is none, or the core or ``best`` gets better
        open_columns = needed()
        core = _core(model, relaxed, size, open_columns)
        whole = core is not None and bool((core == open_columns).all())
        final = whole and bool(best)
        answer = Answer("infeasible")
        if core is not None:
            answer = _solve(model, core, exact, objective, effort, 1.0 if final else SHARE, best, value)
        if answer.state == "unknown" and not best:
            answer = _solve(model, everything, exact, objective, effort, SHARE, relax=False)
            whole = answer.state != "feasible"
        twin = False
        if answer.taken:
            found = objective.value(every_column(model.columns, answer.taken))
            twin = bool(best) and found == value
            best, value = answer.taken, found
        if whole and answer.state == "infeasible":
            return Outcome("optimal", best, value, value) if best else Outcome("infeasible")
        tight = bool(best) and value <= lower
        optimal = optimal or tight or (whole and answer.state == "optimal")
        if optimal and (twin or tight or answer.state != "optimal" or effort.left <= 0):
            return Outcome("optimal", best, value, value, needed())
        bound = max(lower, min(value, answer.bound)) if whole and best else lower
        if best and (any_solution or (not optimal and objective.gap(value, bound) <= gap)):
            return Outcome("feasible", best, value, bound)
        if not optimal and (effort.left <= 0 or final or (whole and not best)):
            return Outcome("feasible", best, value, bound) if best else Outcome("unknown", bound=lower)
        size *= GROWTH


def _core(model: Model, relaxed: Relaxation, size: int, open_columns: Mask) -> Mask | None:
    """The ``size`` nearest columns of groups beside one of each, with all of their tables that are open; None if none fit."""
    first_end = model.columns.first_end
    last = len(model.columns.groups) + size
    if last >= first_end or np.isinf(relaxed.bound):
        return open_columns
    near = relaxed.distance <= np.partition(relaxed.distance[:first_end], last)[last]
    near[first_end:] = True
    return model.tightened(near & open_columns)


def _solve(
    model: Model,
    core: Mask,
    exact: set[int],
    objective: Objective,
    effort: Effort,
    share: float = 1.0,
    rival: Sequence[int] = (),
    value: int = 0,
    relax: bool = True,
) -> Answer:
    """CP-SAT's answer on a core; rows that its solution breaks by the bits that were lost are added to ``exact``."""
    while True:
        answer = Program(model, core, exact).solve(objective, effort, share, rival, value, relax)
        taken = every_column(model.columns, answer.taken) if answer.taken else set()
        broken = {number for number, row in enumerate(model.rows) if row.terms.value(taken) > row.bound}
        if broken <= exact:
            assert not broken
            return answer
        exact |= broken


def minimize_in_turn(model: Model, objectives: Sequence[Objective], effort: Effort, gap: float = 0.0) -> Outcome:
    """The least first objective, among its optima the least second one and so on; then the first columns in order of groups.

    The outcome is that of the first objective; where the effort ends early, ties stay as they are.
    """
    outcome = minimize(model, objectives[0], effort, gap)
    last = outcome
    for number, objective in enumerate(objectives):
        if last.rivals is None or effort.left <= 0:
            break
        model = model.within(model.columns.at_most(objective, last.value), last.rivals)
        if number + 1 < len(objectives):
            better = minimize(model, objectives[number + 1], effort)
            last = better if better.taken else replace(last, rivals=None)
    else:
        if last.rivals is not None:
            last = replace(last, taken=_first(model, last.taken, effort))
    return replace(outcome, taken=last.taken)


def _first(model: Model, taken: tuple[int, ...], effort: Effort) -> tuple[int, ...]:
    """The solution that takes the first columns it can, group by group: as many groups at once as have a rank in an integer."""
    exact: set[int] = set()
    for ranks in _ranks(model):
        mask = model.tightened(model.left)
        assert mask is not None  # it has ``taken``
        answer = _solve(model, mask, exact, ranks, effort)
        taken = answer.taken or taken
        if answer.state != "optimal":
            break
        mask[list(ranks.levels[0].columns)] = False
        mask[list(taken)] = True
        model = model.within(left=mask)
    return taken


def _ranks(model: Model) -> Iterator[Objective]:
    """Objectives whose minima take the first columns of groups; earlier groups weigh more, all groups of one fit an integer."""
    block: list[list[int]] = []
    for group in model.columns.groups:
        kept = [column for column in group if model.left[column]]
        if len(kept) > 1:
            if math.prod(map(len, block)) * len(kept) >> WIDTH:
                yield _rank(block)
                block = []
            block.append(kept)
    if block:
        yield _rank(block)


def _rank(block: Sequence[Sequence[int]]) -> Objective:
    ranks: dict[int, int] = {}
    weight = 1
    for kept in reversed(block):
        ranks.update((column, weight * place) for place, column in enumerate(kept))
        weight *= len(kept)
    return Objective((Terms(tuple(ranks), tuple(ranks.values())),))
