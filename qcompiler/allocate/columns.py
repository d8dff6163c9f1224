"""The allocation problem in exact integers: columns, of which one is taken in each part, and rows that must not exceed bounds.

A part is a group of tied variables (a column for each choice that is left) or a table of two groups (a column for each pair of
choices that is left; it is taken where both its ends are). A table makes products linear exactly, whatever the signs of its
numbers: sum_j y[i, j] = x[i] and sum_i y[i, j] = x[j].
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

WIDTH: Final = 60
"""Bits of the largest sum that the solver is given: int64 with room for its own arithmetic."""


@dataclass(frozen=True)
class Terms:
    """A sum of ``amounts`` over the taken ones of ``columns``."""

    columns: tuple[int, ...]
    amounts: tuple[int, ...]

    def value(self, taken: Collection[int]) -> int:
        """The sum; ``taken`` is best a set."""
        return sum(amount for column, amount in zip(self.columns, self.amounts, strict=True) if column in taken)


@dataclass(frozen=True)
class Row:
    """``terms``, none of them negative, are at most ``bound``."""

    terms: Terms
    bound: int


@dataclass(frozen=True)
class Objective:
    """The largest of some sums (usually one), in steps: ``offset + step * value`` in units of 2^-shift.

    ``error`` of the steps may be lost by rounding: 0 for integers, and for floats on a grid that is coarse enough.
    """

    levels: tuple[Terms, ...]
    offset: int = 0
    step: int = 1
    shift: int = 0
    error: int = 0

    def value(self, taken: Collection[int]) -> int:
        """The value of taken columns, in steps."""
        return max(terms.value(taken) for terms in self.levels)

    def number(self, steps: float) -> float:
        """What a bound of so many steps is in the user's units, lost steps taken off, exact for integers; -inf stays."""
        units = self._units(steps)
        return units / (1 << self.shift) if self.shift and units != -math.inf else units

    def gap(self, value: int, bound: float) -> float:
        """How far a value is from its bound, relative to the larger one, in the user's units."""
        return relative_gap(self.offset + self.step * value, self._units(bound))

    def _units(self, steps: float) -> float:
        """A bound of so many steps in units of 2^-shift, lost steps taken off: an integer, or -inf."""
        return self.offset + self.step * (math.floor(steps) - self.error) if math.isfinite(steps) else -math.inf


def relative_gap(value: float, bound: float) -> float:
    """How far ``value`` is above ``bound``, relative to the larger one; inf without a bound. Of integers it is exact: no double
    hides that they differ."""
    if bound == -math.inf:
        return math.inf
    return max(0, value - bound) / (max(abs(value), abs(bound)) or 1)


@dataclass(frozen=True)
class Columns:
    """``groups`` and ``tables`` are consecutive ranges of columns.

    ``pairs``: the two groups of each table; ``ends``: the two columns that each column of a table stands for.
    """

    groups: tuple[range, ...]
    tables: tuple[range, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    ends: tuple[tuple[int, int], ...] = ()

    @staticmethod
    def of(groups: Sequence[range], tables: Mapping[tuple[int, int], Sequence[tuple[int, int]]]) -> Columns:
        """Columns of groups, and of a table for each pair of groups with the pairs of columns that can be taken."""
        start = groups[-1].stop
        stops = list(accumulate(map(len, tables.values()), initial=start))
        ranges = tuple(range(first, stop) for first, stop in pairwise(stops))
        return Columns(tuple(groups), ranges, tuple(tables), tuple(end for ends in tables.values() for end in ends))

    def with_tables(self, numbers: Iterable[int]) -> Columns:
        """The same groups with some of the tables."""
        start = self.first_end
        ends = {self.pairs[n]: self.ends[self.tables[n].start - start : self.tables[n].stop - start] for n in numbers}
        return Columns.of(self.groups, ends)

    @property
    def parts(self) -> tuple[range, ...]:
        return self.groups + self.tables

    @property
    def first_end(self) -> int:
        """The first column of tables; those of groups come before."""
        return self.groups[-1].stop

    @property
    def count(self) -> int:
        return self.first_end + len(self.ends)

    @cached_property
    def part_of(self) -> tuple[int, ...]:
        """The part of each column."""
        return tuple(number for number, part in enumerate(self.parts) for _ in part)

    @cached_property
    def sides(self) -> Indices:
        """``ends`` as an array ``[columns of tables, 2]``."""
        return np.asarray(self.ends, dtype=np.intp).reshape(-1, 2)

    @cached_property
    def links(self) -> tuple[Indices, Indices]:
        """A link says that a group's column is taken where one of a table's is.

        The first array has each link's group column, the second, ``[columns of tables, 2]``, the two links of a table's column.
        """
        holders: list[int] = []
        of_column = np.zeros((len(self.ends), 2), dtype=np.intp)
        for table, pair in zip(self.tables, self.pairs, strict=True):
            ends = [end for group in pair for end in self.groups[group]]
            numbers = {end: len(holders) + place for place, end in enumerate(ends)}
            holders += ends
            for column in table:
                of_column[column - self.first_end] = [numbers[end] for end in self.ends[column - self.first_end]]
        return np.asarray(holders, dtype=np.intp), of_column

    def row(self, amounts: Mapping[int, int], bound: int) -> Row | None:
        """A row with the least amount of each part taken off and common factors divided out; None if it always holds."""
        terms, low, high = self._shifted(amounts)
        bound -= low
        if bound >= high:
            return None
        if bound < 0:
            return Row(Terms((), ()), -1)
        factor = math.gcd(*terms.amounts)
        return Row(Terms(terms.columns, tuple(amount // factor for amount in terms.amounts)), bound // factor)

    def objective(self, levels: Sequence[Mapping[int, int]], shift: int) -> Objective:
        """The largest of ``levels``, in steps that the solver can add up even times the number of groups."""
        width = WIDTH - len(self.groups).bit_length()
        if len(levels) > 1:
            found = [Terms(tuple(amounts), tuple(amounts.values())) for amounts in levels]
            offset, high = 0, max(sum(map(abs, terms.amounts)) for terms in found)
        else:
            terms, offset, high = self._shifted(levels[0])
            found = [terms]
        step, error = math.gcd(*(amount for terms in found for amount in terms.amounts)) or 1, 0
        if (high // step) >> width:
            step, error = 1 << (high.bit_length() - width), (len(self.parts) + 1) // 2
        rounded = (Terms(t.columns, tuple((2 * amount + step) // (2 * step) for amount in t.amounts)) for t in found)
        return Objective(tuple(rounded), offset, step, shift, error)

    def at_most(self, objective: Objective, value: int) -> list[Row | None]:
        """Rows that hold where ``objective`` is at most ``value`` steps."""
        return [self.row(dict(zip(terms.columns, terms.amounts, strict=True)), value) for terms in objective.levels]

    def _shifted(self, amounts: Mapping[int, int]) -> tuple[Terms, int, int]:
        """``amounts`` with each part's least at 0, the sum of these least amounts, and the largest sum that is left."""
        found: dict[int, int] = {}
        low = high = 0
        for number in sorted({self.part_of[column] for column in amounts}):
            part = self.parts[number]
            cells = [amounts.get(column, 0) for column in part]
            least = min(cells)
            low += least
            high += max(cells) - least
            found.update((column, cell - least) for column, cell in zip(part, cells, strict=True) if cell > least)
        return Terms(tuple(found), tuple(found.values())), low, high


@dataclass(frozen=True)
class Model:
    """``rows`` over ``columns``; ``left`` says which of these may be taken."""

    columns: Columns
    rows: tuple[Row, ...]
    left: Mask

    def within(self, rows: Iterable[Row | None] = (), left: Mask | None = None) -> Model:
        """This model with more rows and fewer columns."""
        narrowed = self.left if left is None else self.left & left
        return replace(self, rows=(*self.rows, *(row for row in rows if row is not None)), left=narrowed)

    def tightened(self, mask: Mask) -> Mask | None:
        """``mask`` without columns that a table forbids altogether; None if some part has nothing left."""
        columns = self.columns
        mask = mask & self.left
        holders, of_column = columns.links
        while columns.tables:
            pairs = mask[columns.first_end :] & mask[columns.sides].all(axis=1)
            support = np.bincount(of_column[pairs].ravel(), minlength=len(holders))
            tight = mask.copy()
            tight[columns.first_end :] = pairs
            tight[holders[support == 0]] = False
            if (tight == mask).all():
                break
            mask = tight
        starts = np.asarray([part.start for part in columns.parts if part], dtype=np.intp)
        full = len(starts) == len(columns.parts) and bool(np.logical_or.reduceat(mask, starts).all())
        return mask if full else None
