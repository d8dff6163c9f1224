"""CP-SAT on a few columns of a model: everything is an integer, so its answers are exact."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Literal

from qcompiler.allocate.columns import WIDTH, Mask, Model, Objective, Row, Terms
from qcompiler.errors import InternalError

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

LOOSE: Final = 40
"""Bits of a row's largest sum that the solver works with first: as measured, more make it several times slower."""

State = Literal["optimal", "feasible", "infeasible", "unknown"]


def solver_name() -> str:
    """The solver and its version; what it needs is imported here, which takes half a second the first time."""
    for module in ("ortools.sat.python.cp_model", "ortools.linear_solver.pywraplp"):
        import_module(module)
    return f"OR-Tools CP-SAT {version('ortools')}"


@dataclass
class Effort:
    """``left`` of the deterministic time, in the solver's own seconds (each 1 to 4 of one core, as measured), and the seed."""

    left: float
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """``taken``: the column of each group, where there is a solution; no solution's value is below ``bound`` (in steps)."""

    state: State
    taken: tuple[int, ...] = ()
    bound: float = float("-inf")


@dataclass
class Program:
    """The columns of ``mask`` (tightened) as literals; those that are alone in their part are taken.

    Rows of many bits are loosened, but for those of ``exact``, which may become several and cost time.
    """

    model: Model
    mask: Mask
    exact: Collection[int] = ()
    literals: dict[int, cp_model.IntVar] = field(default_factory=dict)
    fixed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        from ortools.sat.python import cp_model

        self.solver_model = cp_model.CpModel()
        for group in self.model.columns.groups:
            kept = [column for column in group if self.mask[column]]
            if len(kept) == 1:
                self.fixed.add(kept[0])
            else:
                self.literals.update((column, self.solver_model.new_bool_var("")) for column in kept)
                self.solver_model.add_exactly_one(self.literals[column] for column in kept)
        for table in self.model.columns.tables:
            self._add_table([column for column in table if self.mask[column]])
        for number, row in enumerate(self.model.rows):
            self._at_most(row, number in self.exact)

    def _add_table(self, kept: Sequence[int]) -> None:
        links: dict[int, list[cp_model.IntVar]] = {}
        for column in kept:
            ends = self.model.columns.ends[column - self.model.columns.first_end]
            free = [end for end in ends if end not in self.fixed]
            if not free:
                self.fixed.add(column)
            elif len(free) == 1:
                self.literals[column] = self.literals[free[0]]
            else:
                self.literals[column] = self.solver_model.new_bool_var("")
                for end in free:
                    links.setdefault(end, []).append(self.literals[column])
        for end, pairs in links.items():
            self.solver_model.add_exactly_one(*pairs, ~self.literals[end])

    def _split(self, terms: Terms) -> tuple[list[cp_model.IntVar], list[int], int]:
        """Literals and amounts of what is open, and the sum of what is fixed."""
        found = list(zip(terms.columns, terms.amounts, strict=True))
        open_terms = [(self.literals[column], amount) for column, amount in found if column in self.literals]
        return [v for v, _ in open_terms], [a for _, a in open_terms], sum(a for column, a in found if column in self.fixed)

    def _at_most(self, row: Row, exact: bool) -> None:
        """A row, loosened to ``LOOSE`` bits; or whole, digit by digit with carries where int64 does not hold the sum."""
        from ortools.sat.python.cp_model import LinearExpr

        literals, amounts, constant = self._split(row.terms)
        bound, total = row.bound - constant, sum(amounts)
        if bound >= total:
            return
        if bound < 0:
            self.solver_model.add_bool_or([])
            return
        surplus = max(0, total.bit_length() - (WIDTH if exact else LOOSE))
        if not (exact and surplus):
            expr = LinearExpr.weighted_sum(literals, [amount >> surplus for amount in amounts])
            self.solver_model.add(expr <= bound >> surplus)
            return
        width = WIDTH - 1 - len(literals).bit_length()
        digit = (1 << width) - 1
        carry: cp_model.IntVar | int = 0
        for low in range(0, total.bit_length(), width):
            expr = LinearExpr.weighted_sum(literals, [amount >> low & digit for amount in amounts]) + carry
            if total >> low + width:
                carry = self.solver_model.new_int_var(0, len(literals) + 1, "")
                self.solver_model.add(expr - (digit + 1) * carry <= bound >> low & digit)
            else:
                self.solver_model.add(expr <= bound >> low)

    def _exclude(self, taken: Sequence[int]) -> None:
        """Something else than ``taken``."""
        self.solver_model.add_bool_or([~self.literals[column] for column in taken if column in self.literals])

    def _apart(self, objective: Objective, rival: Sequence[int]) -> tuple[Objective, int]:
        """``objective`` times the second result, less the number of groups that choose otherwise than ``rival``.

        That number is smaller than the factor, so what is below factor * value is another solution that is at least as good.
        CP-SAT proves that there is none several times faster than with a clause that excludes ``rival``.
        """
        kept = [[c for c in group if c in self.literals] for group in self.model.columns.groups]
        free = [columns for columns in kept if columns]
        factor = len(free) + 1
        amounts = {c: factor * a for c, a in zip(objective.levels[0].columns, objective.levels[0].amounts, strict=True)}
        chosen = set(rival)
        for column in (column for columns in free for column in columns if column not in chosen):
            amounts[column] = amounts.get(column, 0) - 1
        return Objective((Terms(tuple(amounts), tuple(amounts.values())),)), factor

    def solve(
        self,
        objective: Objective,
        effort: Effort,
        share: float = 1.0,
        rival: Sequence[int] = (),
        value: int = 0,
        relax: bool = True,
    ) -> Answer:
        """The least value of ``objective``, with a share of the effort that is left.

        With a ``rival`` and its ``value``: of other solutions that are at least as good. ``relax``: with the linear relaxation;
        without it many tables are gone through faster, for any solution.
        """
        from ortools.sat.python import cp_model

        factor, limit = 1, value
        if rival and len(objective.levels) == 1:
            objective, factor = self._apart(objective, rival)
            limit = factor * value - 1
        elif rival:
            self._exclude(rival)
        sums = [self._split(terms) for terms in objective.levels]
        goals = [cp_model.LinearExpr.weighted_sum(literals, amounts) + constant for literals, amounts, constant in sums]
        goal = goals[0]
        if len(goals) > 1:
            reach = max(sum(map(abs, amounts)) + abs(constant) for _, amounts, constant in sums)
            goal = self.solver_model.new_int_var(-reach, reach, "")
            for level in goals:
                self.solver_model.add(level <= goal)
        if rival:
            self.solver_model.add(goal <= limit)
        self.solver_model.minimize(goal)
        solver = cp_model.CpSolver()
        parameters = solver.parameters
        parameters.num_workers = 1
        parameters.random_seed = effort.seed
        parameters.max_deterministic_time = max(0.0, share * effort.left)
        # As measured: with the linear relaxation, without cuts and without what presolve tries on all columns.
        parameters.linearization_level = 2 if relax else 0
        parameters.cut_level = 0
        parameters.cp_model_probing_level = 0
        parameters.symmetry_level = 0
        parameters.presolve_inclusion_work_limit = 0  # 9.15 says that feasible models with carries are not
        parameters.catch_sigint_signal = False  # Ctrl-C stays Python's
        status = solver.solve(self.solver_model)
        effort.left -= solver.response_proto.deterministic_time
        if status == cp_model.INFEASIBLE:
            return Answer("infeasible")
        if status == cp_model.UNKNOWN:
            return Answer("unknown")
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            raise InternalError(f"allocation: CP-SAT says {solver.status_name(status)}: {self.solver_model.validate()}")
        taken = tuple(
            next(c for c in group if c in self.fixed or (c in self.literals and solver.boolean_value(self.literals[c])))
            for group in self.model.columns.groups
        )
        bound = solver.best_objective_bound / factor
        return Answer("optimal" if status == cp_model.OPTIMAL else "feasible", taken, bound - abs(bound) * 2.0**-50)
