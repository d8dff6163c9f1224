"""From a budget to the bits of every tensor: sensitivities, measured costs, and the solver, in a row.

Where the accuracy has a limit, a bisection over the limit on the sensitivity finds the least of what is to be minimized: every
candidate is rounded, quantized and run as it would ship.

Errors: BUDGET003 nothing within the limits is accurate enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from qcompiler.allocate import Allocation, Limit, allocate
from qcompiler.errors import CompileError
from qcompiler.search.budget import Budget, amount
from qcompiler.search.problem import Problem
from qcompiler.sensitivity.table import SensitivityTable

ROUNDS: Final = 8
"""Of a bisection over the logarithm of the sensitivity: its limit is known to a factor of the range to the power of 2^-8."""
SMALLEST: Final = 1e-30
RESOURCES: Final = {"size": "weight_bytes", "latency": "latency_ns", "bops": "bops", "sensitivity": "sensitivity"}


@dataclass(frozen=True)
class Choice:
    """``bits``: of weight constants and activation classes by name. The rest is what led there, for the report."""

    bits: Mapping[str, int]
    allocation: Allocation
    table: SensitivityTable
    drop: float | None = None


def limits_of(budget: Budget, problem: Problem) -> list[Limit]:
    """The budget's limits that are sums over tables."""
    size = amount("size", budget.size, problem.at_8_bits["weight_bytes"])
    if budget.average_bits is not None:
        most = int(budget.average_bits * problem.at_8_bits["weight_bytes"] / 8)
        size = most if size is None else min(size, most)
    known = {
        "weight_bytes": size,
        "bops": amount("bops", budget.bops, problem.at_8_bits["bops"]),
        "latency_ns": None if budget.latency_ms is None else budget.latency_ms * 1e6,
        "sensitivity": budget.sensitivity,
    }
    return [Limit(name, maximum=limit) for name, limit in known.items() if limit is not None]


def solve(problem: Problem, limits: list[Limit], minimize: str, where: str) -> Allocation:
    """The allocation of ``problem``."""
    return allocate(problem.variables, problem.unary, problem.pairs, limits, RESOURCES[minimize], where=where)


def chosen_bits(allocation: Allocation) -> dict[str, int]:
    """The allocation's choices as numbers."""
    return {name: int(choice) for name, choice in allocation.choice.items()}


def search(
    name: str, problem: Problem, table: SensitivityTable, budget: Budget, drop_of: Callable[[Mapping[str, int]], float]
) -> Choice:
    """The bits within ``budget``; ``drop_of``: the measured drop, in percent, of a choice of bits. ``name``: the network's."""
    limits = limits_of(budget, problem)
    allocation = solve(problem, limits, budget.goal, name)
    if budget.accuracy_drop is None:
        return Choice(chosen_bits(allocation), allocation, table)
    drop = drop_of(chosen_bits(allocation))
    if drop <= budget.accuracy_drop:
        return Choice(chosen_bits(allocation), allocation, table, drop)
    least = solve(problem, limits, "sensitivity", name) if budget.goal != "sensitivity" else allocation
    found = Choice(chosen_bits(least), least, table, drop if least is allocation else drop_of(chosen_bits(least)))
    assert found.drop is not None
    if found.drop > budget.accuracy_drop:
        best = f"the accuracy drops by {found.drop:.2f} % with the best bits within the limits"
        text = f"{best}, more than {budget.accuracy_drop:g} %"
        raise CompileError("BUDGET003", name, text, "allow more bytes, time or drop")

    def solved(limit: Limit) -> Allocation:
        return solve(problem, [*limits, limit], budget.goal, name)

    return _bisected(found, allocation, solved, drop_of, budget.accuracy_drop)


def _bisected(
    kept: Choice,
    cheapest: Allocation,
    solved: Callable[[Limit], Allocation],
    drop_of: Callable[[Mapping[str, int]], float],
    most: float,
) -> Choice:
    """Between ``kept``, which drops little enough, and ``cheapest``, which does not: the cheapest found that does."""
    low, high = (max(float(a.totals["sensitivity"]), SMALLEST) for a in (kept.allocation, cheapest))
    tried = {tuple(kept.bits.values()), tuple(chosen_bits(cheapest).values())}
    for _ in range(ROUNDS):
        middle = math.sqrt(low * high)
        allocation = solved(Limit("sensitivity", maximum=middle))
        bits = chosen_bits(allocation)
        if tuple(bits.values()) in tried:
            low = middle
            continue
        tried.add(tuple(bits.values()))
        drop = drop_of(bits)
        if drop <= most:
            kept, low = replace(kept, bits=bits, allocation=allocation, drop=drop), middle
        else:
            high = middle
    return kept
