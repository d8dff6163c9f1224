"""The static memory plan: an address for every buffer, so that buffers alive at the same time do not overlap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

ALIGNMENT: Final = 64


def aligned(size: int) -> int:
    """``size`` rounded up to whole cache lines."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Lifetime:
    """A buffer of ``size`` bytes that is written at step ``first`` and read for the last time at step ``last``."""

    size: int
    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        """Whether both are alive at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class MemoryPlan:
    """``offsets`` of the buffers, the bytes that they need together, and the most bytes alive at once."""

    offsets: Mapping[str, int]
    size: int
    largest_live: int


def largest_live(buffers: Mapping[str, Lifetime]) -> int:
    """The most bytes that are alive at one step, each buffer in whole cache lines: no plan needs less."""
    steps = {b.first for b in buffers.values()}
    return max((sum(aligned(b.size) for b in buffers.values() if b.first <= s <= b.last) for s in steps), default=0)


def _place(buffers: Mapping[str, Lifetime], order: Sequence[str]) -> tuple[dict[str, int], int]:
    """Each buffer in turn at the lowest address that is free during its whole life."""
    offsets: dict[str, int] = {}
    for name in order:
        taken = sorted(
            (offsets[other], offsets[other] + aligned(buffers[other].size))
            for other in offsets
            if buffers[other].overlaps(buffers[name])
        )
        offset = 0
        for begin, end in taken:
            if begin - offset >= aligned(buffers[name].size):
                break
            offset = max(offset, end)
        offsets[name] = offset
    return offsets, max((offsets[n] + aligned(buffers[n].size) for n in offsets), default=0)


def _conflict_bytes(buffers: Mapping[str, Lifetime], name: str) -> int:
    return sum(aligned(other.size) for other in buffers.values() if other.overlaps(buffers[name]))


def plan_memory(buffers: Mapping[str, Lifetime]) -> MemoryPlan:
    """The best of several greedy orders (sizes, lengths of life, starts, contention), which usually reaches the bound.

    Deterministic; ties go to the earlier order and the earlier name.
    """
    keys: tuple[Callable[[str], tuple[int, ...]], ...] = (
        lambda n: (-buffers[n].size, buffers[n].first),
        lambda n: (-(buffers[n].last - buffers[n].first), -buffers[n].size),
        lambda n: (buffers[n].first, -buffers[n].size),
        lambda n: (-buffers[n].last, -buffers[n].size),
        lambda n: (-_conflict_bytes(buffers, n), -buffers[n].size),
    )
    bound = largest_live(buffers)
    best: tuple[dict[str, int], int] | None = None
    for key in keys:
        found = _place(buffers, sorted(buffers, key=lambda n: (key(n), n)))
        if best is None or found[1] < best[1]:
            best = found
        if best[1] == bound:
            break
    assert best is not None
    return MemoryPlan(best[0], best[1], bound)
