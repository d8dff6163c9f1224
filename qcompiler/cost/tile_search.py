"""A search for tilings: what the model finds promising is measured, within the network.

A trace of the network is made for every rank: in trace k each kernel has the k-th of its tilings, the model's choice being the
first. The traces take turns in one library, on one memory plan and one set of weights, so a kernel finds its data where it finds
it in the network. They do so in several copies of the memory: which pages it has decides what the second-level cache can hold,
which was seen to be worth up to 30 % of a layer's time, and is another in every process. Half of the copies choose, the other
half must agree: luck does not choose. Nor does other work of the machine: of all passes the undisturbed ones count.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final

import numpy as np

from qcompiler.backend.tile_table import TileTable, TunedTiling
from qcompiler.cost.machine import cpu_name
from qcompiler.cost.measure import RunningTraces
from qcompiler.cost.trace import Trace
from qcompiler.progress import Progress
from qcompiler.schedules.tiling import Tiling, tiling_text
from qcompiler.targets.target import Target

SECONDS: Final = 20.0
"""How long to measure, if not ``MOST_ROUNDS`` are over before; every trace has ``FEWEST_ROUNDS`` turns whatever that takes."""
FEWEST_ROUNDS: Final = 5
MOST_ROUNDS: Final = 50
MEMORIES: Final = 4
"""Copies of the memory, in each of which every trace has its turn in a round."""
UNDISTURBED: Final = 25
"""The percentile of a tiling's times that counts: kernels always take as long, but for what else the machine does."""
WORTH: Final = 0.97
"""A tiling must take at most this share of the time of the model's choice."""

Times = np.ndarray[Any, np.dtype[np.float64]]

Choices = Mapping[str, tuple[Tiling, ...]]
"""The tilings of kernels, by key; the first, the model's choice, is empty."""


def search_tiles(traces: Sequence[Trace], known: TileTable, shipped: TileTable, progress: Progress | None = None) -> TileTable:
    """Measures on this machine those kernels of a network that ``known`` lacks; gives what was found about each of them.

    ``traces``: of the network, for every batch size that it has kernels for. ``shipped``: tilings that are worth a try as well.
    Raises CompileError COST005 where this machine cannot run the target's code, TOOL001 and TOOL002.
    """
    choices = promising(traces, known, shipped)
    if not choices:
        return TileTable(known.target)
    times = measure_tilings(traces, choices, known.target, progress)
    found = {}
    for kernel, tilings in choices.items():
        chosen, ratio = choose(times[kernel])
        found[kernel] = TunedTiling(tiling_text(tilings[chosen]), ratio, cpu_name(), date.today().isoformat())
    return TileTable(known.target, found)


def promising(traces: Sequence[Trace], known: TileTable, shipped: TileTable) -> Choices:
    """What is to be measured: the kernels that ``known`` lacks and that have a choice of tilings."""
    from qcompiler.schedules.table import tilings

    specs = {call.kernel: call.spec for trace in traces for call in trace.calls if call.kernel not in known.kernels}
    found: dict[str, tuple[Tiling, ...]] = {}
    for kernel, spec in specs.items():
        models, *others = tilings(spec, known.target.instruction_set) or ((),)
        if models:
            wanted = dict.fromkeys((shipped.tiling(spec), *others))
            found[kernel] = ((), *(tiling for tiling in wanted if tiling and tiling != models))
    return {kernel: tilings for kernel, tilings in found.items() if len(tilings) > 1}


def measure_tilings(
    traces: Sequence[Trace], choices: Choices, target: Target, progress: Progress | None = None
) -> Mapping[str, Times]:
    """Nanoseconds of all calls of each kernel with each of its tilings: ``[tilings, rounds, MEMORIES]``, by key."""
    ranks = max(map(len, choices.values()))

    def ranked(trace: Trace, rank: int) -> Trace:
        return trace.tiled(lambda call: choices[call.kernel][rank % len(choices[call.kernel])] if call.kernel in choices else ())

    turns = [(trace, rank) for trace in traces for rank in range(ranks)]
    running = RunningTraces([ranked(*turn) for turn in turns], target, progress, same_weights=True, memories=MEMORIES)
    rounds: dict[str, list[Times]] = {kernel: [] for kernel in choices}
    begin, done = time.monotonic(), 0.0
    while len(next(iter(rounds.values()))) < FEWEST_ROUNDS or done < 1:
        seen = [np.stack([running.turn(index, memory).min(axis=0) for memory in range(MEMORIES)]) for index in range(len(turns))]
        for kernel, ns in rounds.items():
            ns.append(_by_tiling(kernel, len(choices[kernel]), turns, seen))
        share = max((time.monotonic() - begin) / SECONDS, len(ns) / MOST_ROUNDS)
        if progress:
            progress.advance("tune", 100 * (min(share, 1) - done), total=100)
        done = min(share, 1)
    return {kernel: np.stack(ns, axis=1) for kernel, ns in rounds.items()}


def _by_tiling(kernel: str, count: int, turns: Sequence[tuple[Trace, int]], seen: Sequence[Times]) -> Times:
    """``[tilings, MEMORIES]``: the time of a kernel in one round; a tiling that has several turns in their mean.

    ``seen``: ``[MEMORIES, calls]`` of every turn.
    """
    sums, times = np.zeros((count, MEMORIES)), np.zeros((count, 1))
    for (trace, rank), ns in zip(turns, seen, strict=True):
        places = [place for place, call in enumerate(trace.calls) if call.kernel == kernel]
        if places:
            sums[rank % count] += ns[:, places].sum(axis=1)
            times[rank % count] += 1
    mean: Times = sums / times
    return mean


def choose(ns: Times) -> tuple[int, float]:
    """The fastest tiling and its time over that of the first, which stays unless another is clearly faster.

    ``ns``: ``[tilings, rounds, MEMORIES]``.
    """
    undisturbed = np.percentile(ns, UNDISTURBED, axis=1)
    ratios = undisturbed / undisturbed[0]
    choosing, agreeing = (ratios[:, half::2].mean(axis=1) for half in (0, 1))
    chosen = int(np.argmin(choosing))
    ratio = float(max(choosing[chosen], agreeing[chosen]))
    return (chosen, round(ratio, 3)) if ratio <= WORTH else (0, 1.0)
