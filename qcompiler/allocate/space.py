"""From tables to columns: tied variables become one group, and every total becomes exact integers over columns.

Floats are integers times a power of two, so nothing is rounded here. A limit on floats holds where the correctly rounded total
does not exceed it: what a user reads off is what is compared.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qcompiler.allocate.columns import Columns, Model, Objective, Row
from qcompiler.allocate.tables import LARGEST, Cells, Limit, Number, Sum, Tables

Pair = tuple[int, int]


@dataclass(frozen=True)
class Space:
    """Which variables and choices the columns stand for.

    ``members``: the variables (by index) of each group, by name; ``words``: the choice of each column of a group; ``group_of``
    each variable; ``column_of``: the column of two columns' table. ``emptied``: the groups that no choice is left for.
    """

    tables: Tables
    members: tuple[tuple[int, ...], ...]
    words: tuple[str, ...]
    columns: Columns
    group_of: dict[int, int]
    column_of: dict[Pair, int] = field(default_factory=dict)

    @staticmethod
    def of(tables: Tables, allowed: Sequence[Sequence[bool]], tied: Iterable[Sequence[int]], used: Collection[str]) -> Space:
        """Columns for what is ``allowed``; tables of two groups for ``used`` resources and where a pair cannot be had."""
        variables = tables.variables
        members = sorted(
            (tuple(sorted(group, key=lambda i: variables[i].name)) for group in tied), key=lambda group: variables[group[0]].name
        )
        group_of = {position: number for number, group in enumerate(members) for position in group}
        sums = [(resource, level) for resource, levels in tables.levels.items() for level in levels]
        refused = _refused(tables, allowed, [level for _, level in sums], group_of)
        words: list[str] = []
        groups = []
        for number, group in enumerate(members):
            common = [w for w in variables[group[0]].choices if all(w in variables[i].choices for i in group)]
            kept = [word for word in common if word not in refused[number]]
            groups.append(range(len(words), len(words) + len(kept)))
            words += kept
        space = Space(tables, tuple(members), tuple(words), Columns(tuple(groups)), group_of)
        columns = Columns.of(groups, space._pairs(sums, used))
        column_of = {pair: len(words) + position for position, pair in enumerate(columns.ends)}
        return replace(space, columns=columns, column_of=column_of)

    @property
    def emptied(self) -> list[tuple[int, ...]]:
        return [group for group, columns in zip(self.members, self.columns.groups, strict=True) if not columns]

    def model(self, limits: Iterable[Limit]) -> Model:
        """The model within ``limits`` (of one end each)."""
        return Model(self.columns, (), np.ones(self.columns.count, dtype=bool)).within(
            row for limit in limits for row in self.rows(limit)
        )

    def objective(self, resource: str, sign: int = 1) -> Objective:
        """The total of ``resource``, times ``sign``, as something to minimize."""
        levels, shift = self._amounts(resource, sign)
        return self.columns.objective(levels, shift)

    def rows(self, limit: Limit) -> list[Row | None]:
        """Rows that hold where a limit of one end does."""
        sign = 1 if limit.maximum is not None else -1
        end = limit.maximum if limit.maximum is not None else limit.minimum
        assert end is not None
        levels, shift = self._amounts(limit.resource, sign)
        bound = _bound(sign * end, shift, self.tables.whole(limit.resource))
        return [self.columns.row(amounts, bound) for amounts in levels]

    def unlike(self, choice: Mapping[str, str]) -> Row | None:
        """A row that holds for every assignment but ``choice``, the words of all variables."""
        first = (self.tables.variables[group[0]].name for group in self.members)
        taken = [
            next(column for column in columns if self.words[column] == choice[name])
            for name, columns in zip(first, self.columns.groups, strict=True)
        ]
        return self.columns.row(dict.fromkeys(taken, 1), len(taken) - 1)

    def choice(self, taken: Iterable[int]) -> list[int]:
        """The index of every variable's choice; ``taken`` has the column of each group."""
        found = [0] * len(self.tables.variables)
        for group, column in zip(self.members, taken, strict=True):
            for position in group:
                found[position] = self.tables.variables[position].choices.index(self.words[column])
        return found

    def _pairs(self, sums: Sequence[tuple[str, Sum]], used: Collection[str]) -> dict[Pair, list[Pair]]:
        """For each two groups that need a table, the pairs of columns that can be had."""
        refused: dict[Pair, set[Pair]] = {}
        wanted = set()
        for resource, level in sums:
            for (a, b), rows in level.pairs.items():
                groups = _ordered(self.group_of[a], self.group_of[b])
                if groups[0] != groups[1]:
                    cells = refused.setdefault(groups, set())
                    cells.update(_ordered(i, j) for i, j, cell in self._cells(a, b, rows) if cell is None)
                    if cells or resource in used:
                        wanted.add(groups)
        found = {}
        for groups in sorted(wanted):
            first, second = (self.columns.groups[number] for number in groups)
            found[groups] = [(i, j) for i in first for j in second if (i, j) not in refused[groups]]
        return found

    def _cells(self, a: int, b: int, rows: Sequence[Cells]) -> Iterator[tuple[int, int, Number | None]]:
        """Columns of the groups of variables ``a`` and ``b``, and what ``rows`` say of them."""
        first, second = (self.tables.variables[i].choices.index for i in (a, b))
        places = [(j, second(self.words[j])) for j in self.columns.groups[self.group_of[b]]]
        for i in self.columns.groups[self.group_of[a]]:
            row = rows[first(self.words[i])]
            for j, place in places:
                yield i, j, row[place]

    def _amounts(self, resource: str, sign: int) -> tuple[list[dict[int, int]], int]:
        """Exact amounts of columns in units of 2^-shift, times ``sign``, for each level of a resource."""
        shift = max((_shift(number) for level in self.tables.levels[resource] for number in level.numbers()), default=0)
        found = []
        for level in self.tables.levels[resource]:
            amounts: dict[int, int] = {}
            for position, cells in level.unary.items():
                index = self.tables.variables[position].choices.index
                for column in self.columns.groups[self.group_of[position]]:
                    cell = cells[index(self.words[column])]
                    if cell:
                        amounts[column] = amounts.get(column, 0) + sign * _exact(cell, shift)
            for (a, b), rows in level.pairs.items():
                same = self.group_of[a] == self.group_of[b]
                for i, j, cell in self._cells(a, b, rows):
                    taken = (i if i == j else None) if same else self.column_of.get(_ordered(i, j))
                    if cell and taken is not None:
                        amounts[taken] = amounts.get(taken, 0) + sign * _exact(cell, shift)
            found.append(amounts)
        return found, shift


def _refused(
    tables: Tables, allowed: Sequence[Sequence[bool]], levels: Iterable[Sum], group_of: dict[int, int]
) -> dict[int, set[str]]:
    """The choices that each group cannot have, because a member cannot, or two tied members cannot together."""
    found: dict[int, set[str]] = {number: set() for number in group_of.values()}
    variables = tables.variables
    for position, flags in enumerate(allowed):
        found[group_of[position]].update(w for w, flag in zip(variables[position].choices, flags, strict=True) if not flag)
    for level in levels:
        for position, cells in level.unary.items():
            if None in cells:
                words = zip(variables[position].choices, cells, strict=True)
                found[group_of[position]].update(word for word, cell in words if cell is None)
        for (a, b), rows in level.pairs.items():
            if group_of[a] == group_of[b]:
                for word, row in zip(variables[a].choices, rows, strict=True):
                    if word in variables[b].choices and row[variables[b].choices.index(word)] is None:
                        found[group_of[a]].add(word)
    return found


def _ordered(a: int, b: int) -> Pair:
    return (a, b) if a <= b else (b, a)


def _shift(number: Number) -> int:
    return number.as_integer_ratio()[1].bit_length() - 1


def _exact(number: Number, shift: int) -> int:
    numerator, denominator = number.as_integer_ratio()
    return numerator << (shift - denominator.bit_length() + 1)


def _bound(maximum: Number, shift: int, whole: bool) -> int:
    """The largest total, in units of 2^-shift, that is at most ``maximum``; of floats, the total is rounded before."""
    if abs(maximum) > LARGEST**1.01:
        return (1 if maximum > 0 else -1) << (shift + 1100)  # beyond any total
    if whole:
        return math.floor(maximum)
    near = float(maximum)
    if near > maximum:
        near = math.nextafter(near, -math.inf)
    (low, one), (high, other) = near.as_integer_ratio(), math.nextafter(near, math.inf).as_integer_ratio()
    middle = ((low * other + high * one) << shift) // (2 * one * other)  # of two floats: from there on, totals round up
    return middle if middle / (1 << shift) <= maximum else middle - 1
