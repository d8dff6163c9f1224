"""From a budget to the bits of every tensor: sensitivities, measured costs, and the solver, in a row.

Where the accuracy or the SQNR has a limit, a bisection over the limit on the sensitivity finds the least of what is to be
minimized: every candidate is rounded, quantized and run as it would ship.

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
class Loss:
    """What a run lost: ``drop``, in percent, of the accuracy; ``sqnr_db`` of the first output. None where nobody asks for it."""

    drop: float | None = None
    sqnr_db: float | None = None

    def excess(self, budget: Budget) -> str | None:
        """What is beyond the limits, in words; None where nothing is."""
        if budget.accuracy_drop is not None and self.drop is not None and self.drop > budget.accuracy_drop:
            return f"the accuracy drops by {self.drop:.2f} %, more than {budget.accuracy_drop:g} %,"
        if budget.sqnr_db is not None and self.sqnr_db is not None and self.sqnr_db < budget.sqnr_db:
            return f"the SQNR is {self.sqnr_db:.2f} dB, less than {budget.sqnr_db:g} dB,"
        return None


@dataclass(frozen=True)
class Choice:
    """``bits``: of weight constants and activation classes by name. The rest is what led there, for the report."""

    bits: Mapping[str, int]
    allocation: Allocation
    table: SensitivityTable
    loss: Loss = Loss()


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
    name: str, problem: Problem, table: SensitivityTable, budget: Budget, loss_of: Callable[[Mapping[str, int]], Loss]
) -> Choice:
    """The bits within ``budget``; ``loss_of``: what is measured for a choice of bits. ``name``: the network's."""
    limits = limits_of(budget, problem)
    allocation = solve(problem, limits, budget.goal, name)
    bits = chosen_bits(allocation)
    if not budget.is_measured:
        return Choice(bits, allocation, table)
    found = Choice(bits, allocation, table, loss_of(bits))
    if found.loss.excess(budget) is None:
        return found
    if budget.goal != "sensitivity":
        least = solve(problem, limits, "sensitivity", name)
        found = Choice(chosen_bits(least), least, table, loss_of(chosen_bits(least)))
    excess = found.loss.excess(budget)
    if excess is not None:
        text = f"{excess} with the best bits within the limits"
        raise CompileError("BUDGET003", name, text, "allow more bytes, time or loss")

    def solved(limit: Limit) -> Allocation:
        return solve(problem, [*limits, limit], budget.goal, name)

    return _bisected(found, allocation, solved, loss_of, budget)


def _bisected(
    kept: Choice,
    cheapest: Allocation,
    solved: Callable[[Limit], Allocation],
    loss_of: Callable[[Mapping[str, int]], Loss],
    budget: Budget,
) -> Choice:
    """Between ``kept``, which loses little enough, and ``cheapest``, which does not: the cheapest found that does."""
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
        loss = loss_of(bits)
        if loss.excess(budget) is None:
            kept, low = replace(kept, bits=bits, allocation=allocation, loss=loss), middle
        else:
            high = middle
    return kept
