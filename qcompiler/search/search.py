"""From a budget to the bits of every tensor: sensitivities, measured costs, and the solver, in a row.

Where the accuracy or the SQNR has a limit, a bisection over the limit on the sensitivity finds the least of what is to be
minimized: every candidate is rounded, quantized and run as it would ship.

Errors: BUDGET003 nothing within the limits is accurate enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from qcompiler.allocate import Allocation, Limit, Wording, allocate
from qcompiler.errors import CompileError
from qcompiler.search.budget import Budget, quantity, unit_size
from qcompiler.search.problem import Problem
from qcompiler.sensitivity.table import SensitivityTable

ROUNDS: Final = 8
"""Of a bisection over the logarithm of the sensitivity: its limit is known to a factor of the range to the power of 2^-8."""
SMALLEST: Final = 1e-30
LATENCY_MARGIN: Final = Fraction(3, 100)
"""What stays free of a limit on the latency: an optimum lies at the limit, and it prefers kernels that were measured too fast.
Libraries took 0.2 to 3.4 % longer than predicted on a machine that is shared."""
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
    """The budget's limits that are sums over tables, worded as the user wrote them."""
    whole = problem.at_8_bits
    sizes = [
        _amount_limit(budget, "size", "weight_bytes", whole["weight_bytes"], " bytes"),
        _number_limit(budget, "average_bits", "weight_bytes", Fraction(whole["weight_bytes"], 8), " bits"),
    ]
    known = [
        min((limit for limit in sizes if limit is not None), key=lambda limit: limit.maximum or 0, default=None),
        _amount_limit(budget, "bops", "bops", whole["bops"], ""),
        _number_limit(budget, "latency_ms", "latency_ns", (1 - LATENCY_MARGIN) * 10**6, " ms"),
        _number_limit(budget, "sensitivity", "sensitivity", Fraction(1), ""),
    ]
    return [limit for limit in known if limit is not None]


def _amount_limit(budget: Budget, name: str, resource: str, whole: int, unit: str) -> Limit | None:
    """The limit ``name``, an amount; ``unit``: what follows a number that was given without one."""
    value = getattr(budget, name)
    if value is None:
        return None
    number, given = quantity(name, value)
    shown = {"": unit, "%": "%"}.get(given, f" {given}")
    written = f"{_plain(number)}{shown}" + (f" of {whole:,}{unit}" if given == "%" else "")
    per = unit_size(given, whole)
    return Limit(resource, math.floor(number * per), wording=Wording(budget.spelled(name), written, per, shown))


def _number_limit(budget: Budget, name: str, resource: str, per: Fraction, unit: str) -> Limit | None:
    """The limit ``name``, a number of ``per`` of the resource each."""
    value = getattr(budget, name)
    if value is None:
        return None
    number = Fraction(str(value))
    return Limit(resource, float(number * per), wording=Wording(budget.spelled(name), f"{_plain(number)}{unit}", per, unit))


def _plain(number: Fraction) -> str:
    """A number as people write it."""
    return f"{number.numerator:,}" if number.denominator == 1 else f"{float(number):,.15g}"


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
