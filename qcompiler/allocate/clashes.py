"""Why nothing fits: the fewest limits that clash, and how far each of them is from what is possible.

Errors: ALLOC001 nothing can be chosen even without limits, ALLOC002 the limits clash.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from typing import Final, TypeVar

import numpy as np

from qcompiler.allocate.columns import Model, Objective, Terms
from qcompiler.allocate.program import Effort
from qcompiler.allocate.search import Outcome, minimize
from qcompiler.allocate.space import Space
from qcompiler.allocate.tables import Limit, Tables
from qcompiler.errors import CompileError

Item = TypeVar("Item")

DIGITS: Final = 7
"""Of numbers in messages, where they are not whole."""
NOTHING = Objective((Terms((), ()),))
"""An objective that all solutions share."""


@dataclass(frozen=True)
class Problem:
    """What there is to choose from. ``wishes``: pins and exclusions in words; ``where`` errors say that they are."""

    tables: Tables
    allowed: tuple[tuple[bool, ...], ...]
    tied: tuple[tuple[int, ...], ...]
    wishes: tuple[str, ...]
    where: str
    time_limit: float
    seed: int

    def space(self, used: Collection[str], wishes: bool = True) -> Space:
        """The columns of this problem, without pins and exclusions unless ``wishes``."""
        free = tuple((True,) * len(variable.choices) for variable in self.tables.variables)
        return Space.of(self.tables, self.allowed if wishes else free, self.tied, used)

    def effort(self) -> Effort:
        return Effort(self.time_limit, self.seed)

    def fits(self, space: Space, limits: Sequence[Limit]) -> bool:
        """Whether an assignment keeps ``limits``, as far as the effort tells."""
        if space.emptied:
            return False
        return minimize(space.model(limits), NOTHING, self.effort(), any_solution=True).state != "infeasible"


def explain(problem: Problem, space: Space, limits: Sequence[Limit]) -> CompileError:
    """The error of a problem that has no solution."""
    if space.emptied:
        return _no_choice(problem, space)
    if not problem.fits(space, ()):
        return _no_pairs(problem, space)
    clash = smallest_clash(limits, lambda kept: problem.fits(space, kept))
    lines, remedies, more = [], [], False
    for limit in clash:
        within = _nearest(problem, space, limit, [other for other in limits if other is not limit])
        if not within.taken:
            more = True
            within = _nearest(problem, space, limit, [other for other in clash if other is not limit])
        alone = _nearest(problem, space, limit, ())
        shown, shown_alone = (_total(problem, space, limit, found) for found in (within, alone))
        extreme = "least" if limit.maximum is not None else "most"
        known = "possible" if within.state == alone.state == "optimal" else "found"
        text = f"{_written(limit)}: the {extreme} {known} is {shown_alone}"
        lines.append(text + (f", within the other limits {shown}" if shown != shown_alone else ""))
        remedies.append(f"{_change(limit)} to {shown}")
    head = "no assignment keeps this limit:" if len(clash) == 1 else "no assignment keeps these limits together:"
    tail = ["other limits clash as well"] if more else []
    if problem.wishes and problem.fits(problem.space({limit.resource for limit in limits}, wishes=False), limits):
        remedies.append(f"give up some of {_listed(problem.wishes)}")
    return CompileError("ALLOC002", problem.where, "\n".join([head, *lines, *tail]), ", or ".join(remedies))


def smallest_clash(items: Sequence[Item], fits: Callable[[Sequence[Item]], bool]) -> list[Item]:
    """A set of ``items`` that do not fit together, but do without any one of them (Junker, "QuickXplain", 2004)."""

    def needed(kept: list[Item], grown: bool, rest: Sequence[Item]) -> list[Item]:
        if grown and not fits(kept):
            return []
        if len(rest) == 1:
            return list(rest)
        first, second = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        of_second = needed([*kept, *first], True, second)
        return needed([*kept, *of_second], bool(of_second), first) + of_second

    return sorted(needed([], False, items), key=list(items).index)


def _nearest(problem: Problem, space: Space, limit: Limit, others: Sequence[Limit]) -> Outcome:
    """The total nearest to ``limit`` that ``others`` allow."""
    objective = space.objective(limit.resource, 1 if limit.maximum is not None else -1)
    return minimize(space.model(others), objective, problem.effort())


def _written(limit: Limit) -> str:
    wording, bound = limit.wording, "at least" if limit.maximum is None else "at most"
    if wording is not None:
        return f"{wording.name} {bound} {wording.written}"
    return f"{limit.resource} {bound} {limit.minimum if limit.maximum is None else limit.maximum:,}"


def _change(limit: Limit) -> str:
    verb, noun = ("raise", "maximum") if limit.maximum is not None else ("lower", "minimum")
    return f"{verb} the {noun} of {limit.resource}" if limit.wording is None else f"{verb} {limit.wording.name}"


def _total(problem: Problem, space: Space, limit: Limit, outcome: Outcome) -> str:
    """An outcome's total for the reader, rounded to the side on which the limit holds."""
    if not outcome.taken:
        return "unknown"
    total, wording = problem.tables.total(limit.resource, space.choice(outcome.taken)), limit.wording
    per = Fraction(1) if wording is None else wording.per
    unit = "" if wording is None else wording.unit
    if isinstance(total, int) and per == 1:
        return f"{total:,}{unit}"
    context = Context(prec=DIGITS, rounding=ROUND_CEILING if limit.maximum is not None else ROUND_FLOOR)
    exact = Fraction(repr(total)) / per
    rounded = context.divide(Decimal(exact.numerator), Decimal(exact.denominator)).normalize()
    return (f"{rounded:,f}" if -6 < rounded.adjusted() < 16 else f"{rounded:e}") + unit


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:6]) + (f", ... ({len(words)} in all)" if len(words) > 6 else "")


def _no_choice(problem: Problem, space: Space) -> CompileError:
    group = space.emptied[0]
    lines = []
    for position in group:
        variable = problem.tables.variables[position]
        words = [word for word, flag in zip(variable.choices, problem.allowed[position], strict=True) if flag]
        lines.append(f"{variable.name} may have {', '.join(words) or 'nothing'}")
    problem_text = f"no choice is left: {'; '.join(lines)}; the tables must have a number for it"
    remedy = "change pins, exclusions or ties, or give numbers for more choices"
    return CompileError("ALLOC001", problem.where, problem_text, remedy)


def _no_pairs(problem: Problem, space: Space) -> CompileError:
    def fit(kept: Sequence[int]) -> bool:
        columns = space.columns.with_tables(kept)
        model = Model(columns, (), np.ones(columns.count, dtype=bool))
        return minimize(model, NOTHING, problem.effort(), any_solution=True).state != "infeasible"

    variables = problem.tables.variables
    clash = smallest_clash(range(len(space.columns.tables)), fit)
    pairs = [[variables[space.members[group][0]].name for group in space.columns.pairs[number]] for number in clash]
    text = f"no choices go together in the tables of {_listed([' x '.join(names) for names in pairs])}"
    return CompileError("ALLOC001", problem.where, text, "give numbers for more pairs, or change pins, exclusions or ties")
