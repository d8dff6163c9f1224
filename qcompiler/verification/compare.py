"""One library beside the reference: every form in which it can be called must give the same codes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qcompiler.ir.graph import Array
from qcompiler.verification.runner import Runner
from qcompiler.verification.samples import Expected


@dataclass(frozen=True)
class Difference:
    """Output number ``output`` of a library: ``wrong`` of ``codes`` codes differ, the first at ``place`` (sample first)."""

    output: int
    wrong: int
    codes: int
    place: tuple[int, ...]
    found: int
    wanted: int

    def __str__(self) -> str:
        where = f"the first at {list(self.place)}: {self.found}, not {self.wanted}"
        return f"{self.wrong:,} of {self.codes:,} codes differ, {where}"


def first_difference(runner: Runner, wanted: Expected, batch_tile: int) -> Difference | None:
    """The first output that differs in one of the calls; None where all are equal."""
    return next(
        (found for samples, threads in _calls(runner, wanted, batch_tile) for found in _run(runner, samples, threads)), None
    )


def _calls(runner: Runner, wanted: Expected, batch_tile: int) -> Iterator[tuple[Expected, int]]:
    """What is run: a batch that needs whole tiles and single samples, then the same on two threads."""
    samples = wanted if batch_tile == 1 else wanted.repeated(batch_tile + 1)
    yield samples, 1
    if runner.threads:
        yield samples, 2


def _run(runner: Runner, wanted: Expected, threads: int) -> Iterator[Difference]:
    for index, (found, right) in enumerate(zip(runner.run(wanted.inputs, threads), wanted.outputs, strict=True)):
        if not np.array_equal(found, right):
            yield _difference(index, found, right)


def _difference(index: int, found: Array, right: Array) -> Difference:
    places = np.argwhere(found != right)
    first = tuple(int(i) for i in places[0])
    return Difference(index, len(places), right.size, first, int(found[first]), int(right[first]))
