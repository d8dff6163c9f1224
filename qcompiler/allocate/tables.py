"""The numbers of an allocation, checked: what every choice, and every pair of choices, costs of every resource.

A resource is a sum (of one number per variable and one per pair of variables) or a peak (the largest of several sums). If all its
numbers are integers its totals are exact; otherwise a total is the correctly rounded sum of its numbers (``math.fsum``).

Errors: ALLOC003 a table does not fit the variables, ALLOC004 a number is none, ALLOC005 no such resource, ALLOC006 pins,
exclusions or ties name what is not there, ALLOC007 the variables themselves are wrong, ALLOC009 a limit is wrong.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final

from qcompiler.errors import CompileError

Number = int | float
Cells = tuple[Number | None, ...]
"""One number per choice; None where a choice cannot be had."""

LARGEST: Final = 1e300


@dataclass(frozen=True)
class Variable:
    """``choices`` are any words ("8", "w4a8"), the preferred ones first: they decide between equals."""

    name: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Wording:
    """How errors write a limit that its user said in other words and units than those of the tables.

    ``name``: what the user calls the limit, ``written``: the limit as written ("1.5 MiB"); ``per``: how much of the resource is
    one of the user's units, ``unit``: what follows a number of them (" MiB", "%").
    """

    name: str
    written: str
    per: Fraction = Fraction(1)
    unit: str = ""


@dataclass(frozen=True)
class Limit:
    """The total of ``resource`` is at most ``maximum`` and at least ``minimum``, where given.

    ``wording``: how errors write it, by default with the resource's name and the tables' numbers.
    """

    resource: str
    maximum: Number | None = None
    minimum: Number | None = None
    wording: Wording | None = None


@dataclass(frozen=True)
class Sum:
    """A resource whose total is a sum over variables (by index) and pairs of variables."""

    unary: Mapping[int, Cells]
    pairs: Mapping[tuple[int, int], tuple[Cells, ...]]

    def numbers(self) -> Iterator[Number]:
        for cells in (*self.unary.values(), *(row for rows in self.pairs.values() for row in rows)):
            yield from (cell for cell in cells if cell is not None)

    def total(self, choice: Sequence[int]) -> Number:
        """The total of a choice (an index for every variable) that can be had."""
        found = [cells[choice[a]] for a, cells in self.unary.items()]
        found += [rows[choice[a]][choice[b]] for (a, b), rows in self.pairs.items()]
        return add(number for number in found if number is not None)


def _uniform(levels: tuple[Sum, ...]) -> tuple[Sum, ...]:
    """All numbers as floats if one of them is: a total does not depend on how they were written."""
    if not any(isinstance(number, float) for level in levels for number in level.numbers()):
        return levels
    return tuple(
        Sum(
            {a: _floats(cells) for a, cells in level.unary.items()},
            {pair: tuple(map(_floats, rows)) for pair, rows in level.pairs.items()},
        )
        for level in levels
    )


def _floats(cells: Cells) -> Cells:
    return tuple(None if cell is None else float(cell) for cell in cells)


def add(numbers: Iterable[Number]) -> Number:
    """The exact sum of integers, the correctly rounded sum of floats."""
    found = list(numbers)
    return math.fsum(found) if any(isinstance(number, float) for number in found) else sum(found)


@dataclass(frozen=True)
class Tables:
    """Checked numbers by resource; a sum is a peak of one level."""

    variables: tuple[Variable, ...]
    levels: Mapping[str, tuple[Sum, ...]]
    peaks: frozenset[str]

    @staticmethod
    def of(
        variables: Iterable[Variable],
        unary_costs: Mapping[str, Mapping[str, Sequence[Any]]],
        pair_costs: Mapping[str, Mapping[tuple[str, str], Sequence[Sequence[Any]]]],
        peak_costs: Mapping[str, Sequence[Mapping[str, Sequence[Any]]]],
    ) -> Tables:
        """The tables as the user wrote them; ALLOC003, ALLOC004, ALLOC005 or ALLOC007 where they are wrong."""
        found = _checked(variables)
        index = {variable.name: position for position, variable in enumerate(found)}
        levels: dict[str, tuple[Sum, ...]] = {}
        for resource in sorted({*unary_costs, *pair_costs}):
            pairs = _pairs(resource, pair_costs.get(resource, {}), found, index)
            unary = _unary(resource, unary_costs.get(resource, {}), found, index)
            if resource in unary_costs:
                present = {*unary, *(end for pair in pairs for end in pair)}
                for position, variable in enumerate(found):
                    if position not in present:
                        raise _wrong_table(resource, variable.name, "the table has no row for this variable")
            levels[resource] = _uniform((Sum(unary, pairs),))
        for resource, groups in peak_costs.items():
            if resource in levels:
                problem = "this resource has peak costs and costs that are added up"
                raise CompileError("ALLOC005", resource, problem, "give the two different names")
            if not groups:
                raise CompileError("ALLOC005", resource, "the peak is over no groups", "give at least one group, or leave it out")
            levels[resource] = _uniform(tuple(Sum(_unary(resource, group, found, index), {}) for group in groups))
        return Tables(found, levels, frozenset(peak_costs))

    def total(self, resource: str, choice: Sequence[int]) -> Number:
        """The total of a choice, an index for every variable."""
        return max(level.total(choice) for level in self.levels[resource])

    def whole(self, resource: str) -> bool:
        """Whether all numbers of ``resource`` are integers."""
        return all(isinstance(number, int) for level in self.levels[resource] for number in level.numbers())

    def check_resource(self, resource: str, role: str) -> None:
        """ALLOC005 if nothing is known of ``resource``; ``role`` says what it was meant for."""
        if resource not in self.levels:
            known = ", ".join(sorted(self.levels)) or "none"
            problem = f"{role}, and no table has numbers for it"
            raise CompileError("ALLOC005", resource, problem, f"give its costs, or name one of these: {known}")

    def checked_limits(self, limits: Mapping[str, Number] | Iterable[Limit]) -> tuple[Limit, ...]:
        """Limits without those that limit nothing; ALLOC005 or ALLOC009 where they are wrong."""
        if isinstance(limits, Mapping):
            limits = [Limit(resource, maximum) for resource, maximum in limits.items()]
        found = []
        for limit in limits:
            self.check_resource(limit.resource, "this resource is limited")
            low, high = (None if end is None else _scalar(end) for end in (limit.minimum, limit.maximum))
            problem = None
            if low is None and high is None:
                problem = "the limit has neither a maximum nor a minimum"
            elif any(end is not None and math.isnan(end) for end in (low, high)):
                problem = "the limit is not a number"
            elif low is not None and high is not None and low > high:
                problem = f"the minimum {low:,} is above the maximum {high:,}"
            elif low is not None and limit.resource in self.peaks:
                problem = "a minimum of a peak is not supported"
            if problem is not None:
                raise CompileError("ALLOC009", limit.resource, problem, "write Limit(resource, maximum=...) with a finite number")
            found += [replace(limit, maximum=high, minimum=None)] if high is not None and high != math.inf else []
            found += [replace(limit, maximum=None, minimum=low)] if low is not None and low != -math.inf else []
        return tuple(found)

    def allowed(
        self, pins: Mapping[str, str | Collection[str]], exclude: Mapping[str, str | Collection[str]]
    ) -> tuple[tuple[bool, ...], ...]:
        """Which choices of every variable its pins and exclusions leave; ALLOC006 for unknown names."""
        left = {variable.name: dict.fromkeys(variable.choices, True) for variable in self.variables}
        for kind, wishes in (("pin", pins), ("exclusion", exclude)):
            for name, wish in wishes.items():
                words = {wish} if isinstance(wish, str) else set(wish)
                if name not in left:
                    raise _unknown_variable(kind, name, left)
                for word in sorted(words - set(left[name])):
                    problem = f"a{'n' * (kind[0] == 'e')} {kind} names the choice {word!r}"
                    raise CompileError("ALLOC006", name, problem, f"the choices are: {', '.join(left[name])}")
                for word in left[name]:
                    left[name][word] &= (word in words) == (kind == "pin")
        return tuple(tuple(left[variable.name].values()) for variable in self.variables)

    def tied(self, ties: Iterable[Iterable[str]]) -> list[list[int]]:
        """Indices of variables that share one choice, every variable in one group; ALLOC006 for unknown names."""
        index = {variable.name: position for position, variable in enumerate(self.variables)}
        group = {position: [position] for position in index.values()}
        for tie in ties:
            names = list(tie)
            for name in names:
                if name not in index:
                    raise _unknown_variable("tie", name, index)
            for first, second in pairwise(names):
                one, other = group[index[first]], group[index[second]]
                if one is not other:
                    one.extend(other)
                    group.update(dict.fromkeys(other, one))
        return list({id(members): members for members in group.values()}.values())


def _checked(variables: Iterable[Variable]) -> tuple[Variable, ...]:
    found = tuple(variables)
    problems = [] if found else [("allocation", "there are no variables")]
    names = Counter(variable.name for variable in found)
    problems += [(name, "two variables have this name") for name, count in names.items() if count > 1]
    problems += [(v.name, "the variable has no choices") for v in found if not v.choices]
    problems += [
        (v.name, f"a choice is there twice: {', '.join(v.choices)}") for v in found if len({*v.choices}) < len(v.choices)
    ]
    for where, problem in problems:
        raise CompileError("ALLOC007", where, problem, "give every variable a name of its own and different choices")
    return found


def _unary(
    resource: str, rows: Mapping[str, Sequence[Any]], variables: tuple[Variable, ...], index: Mapping[str, int]
) -> dict[int, Cells]:
    found = {}
    for name, row in rows.items():
        if name not in index:
            raise _wrong_table(resource, name, "there is no such variable")
        choices = variables[index[name]].choices
        if len(row) != len(choices):
            raise _wrong_table(resource, name, f"{len(row)} numbers for {len(choices)} choices: {', '.join(choices)}")
        found[index[name]] = tuple(_number(cell, resource, name, choice) for cell, choice in zip(row, choices, strict=True))
    return found


def _pairs(
    resource: str,
    matrices: Mapping[tuple[str, str], Sequence[Sequence[Any]]],
    variables: tuple[Variable, ...],
    index: Mapping[str, int],
) -> dict[tuple[int, int], tuple[Cells, ...]]:
    found = {}
    for names, rows in matrices.items():
        where = " x ".join(names)
        for name in names:
            if name not in index:
                raise _wrong_table(resource, where, f"there is no variable {name}")
        first, second = (variables[index[name]].choices for name in names)
        widths = {len(row) for row in rows}
        if len(rows) != len(first) or widths != {len(second)}:
            shape = f"{len(rows)} x {' or '.join(map(str, sorted(widths)))}"
            raise _wrong_table(resource, where, f"the matrix is {shape}, the choices are {len(first)} x {len(second)}")
        found[index[names[0]], index[names[1]]] = tuple(
            tuple(_number(cell, resource, where, f"{a}, {b}") for cell, b in zip(row, second, strict=True))
            for row, a in zip(rows, first, strict=True)
        )
    return found


def _scalar(value: Any) -> Number:
    """An int or float of Python for a number of any library."""
    if isinstance(value, float):
        return float(value)
    try:
        return operator.index(value)
    except TypeError:
        return float(value)


def _number(value: Any, resource: str, where: str, choice: str) -> Number | None:
    if value is None:
        return None
    try:
        number = _scalar(value)
    except (TypeError, ValueError):
        number = math.nan
    if number == math.inf:
        return None
    if not abs(number) < LARGEST:
        remedy = f"give numbers below {LARGEST:g}; None or inf says that a choice cannot be had"
        raise CompileError("ALLOC004", f"{resource} of {where}", f"the number for {choice} is {value!r}", remedy)
    return number


def _wrong_table(resource: str, name: str, problem: str) -> CompileError:
    remedy = "give one number for each choice of every variable, 0 where it costs nothing"
    return CompileError("ALLOC003", f"{resource} of {name}", problem, remedy)


def _unknown_variable(kind: str, name: str, known: Iterable[str]) -> CompileError:
    names = list(known)
    listed = ", ".join(names[:10]) + (f", ... ({len(names)} in all)" if len(names) > 10 else "")
    return CompileError("ALLOC006", name, f"a{'n' * (kind[0] == 'e')} {kind} names this variable", f"the variables are: {listed}")
