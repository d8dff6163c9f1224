"""Which other bits are run beside those that the estimate says are best.

The estimate adds up what tensors do alone. Near one another only a run can tell, so the next best are run as they would ship,
and the most bits for all weights alike that the limits allow; what is clearly nearer to the float model is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from qcompiler.allocate import Allocation, allocate, ranked
from qcompiler.search.budget import Budget
from qcompiler.search.pareto import total_costs
from qcompiler.search.problem import Problem
from qcompiler.search.search import Choice, chosen_bits, limits_of

CLOSE: Final = 4.0
"""How much more others may lose by the estimate and still be tried: rounding in closed form changes it by as much."""
RANKED: Final = 8
TRIED: Final = 2
"""Of the ``RANKED`` best assignments, how many are tried beside the best and the uniform one; each takes a build."""


def rivals(problem: Problem, budget: Budget, choice: Choice, where: str) -> list[dict[str, int]]:
    """The bits to run beside ``choice``; none where what is lost is measured anyhow, or not what is minimized.

    None of them gives every tensor as few bits as ``choice`` or an earlier one, or fewer: rounding a tensor less cannot do harm,
    and that samples say so now and then is chance.
    """
    if budget.goal != "sensitivity" or budget.is_measured:
        return []
    uniform = uniform_rival(problem, budget, choice)
    found = [] if uniform is None else [uniform]
    best = ranked(problem.variables, problem.unary, problem.pairs, limits_of(budget, problem), count=RANKED, where=where)
    most = CLOSE * float(choice.allocation.totals["sensitivity"])
    for bits in (chosen_bits(allocation) for allocation in best if allocation.totals["sensitivity"] <= most):
        if len(found) < TRIED + (uniform is not None) and all(_has_more(bits, other) for other in (choice.bits, *found)):
            found.append(bits)
    return found


def _has_more(bits: Mapping[str, int], other: Mapping[str, int]) -> bool:
    """Whether some tensor has more bits than in ``other``."""
    return any(number > other[name] for name, number in bits.items())


def uniform_rival(problem: Problem, budget: Budget, choice: Choice) -> dict[str, int] | None:
    """The most bits for all weights alike within the limits, if the estimate does not say clearly that they lose more.

    None where the choice gives no tensor fewer bits than that.
    """
    for weight_bits in sorted(budget.weight_bits, reverse=True):
        bits = uniform_bits(problem, weight_bits)
        totals = total_costs(problem, bits)
        if all(totals[limit.resource] <= (limit.maximum or 0) for limit in limits_of(budget, problem)):
            known = float(choice.allocation.totals["sensitivity"])
            return bits if _has_more(bits, choice.bits) and totals["sensitivity"] <= CLOSE * known else None
    return None


def pinned(problem: Problem, budget: Budget, bits: Mapping[str, int], where: str) -> Allocation:
    """The allocation that ``bits`` are."""
    return allocate(
        problem.variables,
        problem.unary,
        problem.pairs,
        limits_of(budget, problem),
        pins={name: str(number) for name, number in bits.items()},
        where=where,
    )


def uniform_bits(problem: Problem, weight_bits: int) -> dict[str, int]:
    """Every weight with ``weight_bits`` where it has the choice, all else with the most bits."""
    return {
        v.name: weight_bits if v.name in problem.weights and str(weight_bits) in v.choices else max(map(int, v.choices))
        for v in problem.variables
    }
