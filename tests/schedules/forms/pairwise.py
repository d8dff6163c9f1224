"""A few rows of a table that hold every pair of values that any of its rows holds."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import combinations
from random import Random

Row = tuple[Hashable, ...]
Pair = tuple[int, Hashable, int, Hashable]
LOOKED_AT = 60  # rows of which the best is taken: all of them would take minutes, and save few rows


def pairs(row: Row) -> list[Pair]:
    """The values of every two columns."""
    return [(a, row[a], b, row[b]) for a, b in combinations(range(len(row)), 2)]


def cover(rows: Sequence[Row]) -> list[int]:
    """The places of the chosen rows: each is the best of some that hold the first pair that is not covered yet."""
    random = Random(0)
    holding: dict[Pair, list[int]] = {}
    for place, row in enumerate(rows):
        for pair in pairs(row):
            holding.setdefault(pair, []).append(place)
    missing = dict.fromkeys(holding)
    chosen = []
    while missing:
        candidates = holding[next(iter(missing))]
        looked_at = candidates if len(candidates) <= LOOKED_AT else random.sample(candidates, LOOKED_AT)
        best = max(looked_at, key=lambda place: sum(pair in missing for pair in pairs(rows[place])))
        chosen.append(best)
        for pair in pairs(rows[best]):
            missing.pop(pair, None)
    return chosen
