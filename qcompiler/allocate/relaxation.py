"""How far a column is from any good solution: a bound for all solutions that take it, from the duals of the linear relaxation.

Whatever the multipliers, the Lagrangian sum_parts min(reduced cost) - sum multiplier * bound is at most the optimum; so what
GLOP's tolerances do to the duals makes the bound weaker, never wrong. Its own rounding is part of the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from qcompiler.allocate.columns import Columns, Indices, Model, Objective, Row

Floats = npt.NDArray[np.float64]

TINY: Final = 1e-9
"""Amounts, relative to a row's largest, that the simplex method is better off without; the bound has them all the same."""


@dataclass(frozen=True)
class Relaxation:
    """No solution's value is below ``bound``, none with a column below ``bound + distance[column]``; in steps."""

    bound: float
    distance: Floats

    @staticmethod
    def of(model: Model, objective: Objective, effort: float) -> Relaxation:
        """The bounds of ``model``, weak ones if ``effort`` (deterministic seconds) is not enough for the simplex method.

        They say nothing where the objective is the largest of several sums.
        """
        columns = model.columns
        if len(objective.levels) > 1:
            return Relaxation(-np.inf, np.zeros(columns.count))
        cost = np.zeros(columns.count)
        cost[list(objective.levels[0].columns)] = objective.levels[0].amounts
        rows = [_Scaled.of(row) for row in model.rows if row.terms.columns]
        row_duals, link_duals = _duals(model, cost, rows, effort)
        reduced, size = cost.copy(), np.abs(cost)
        bound = spread = 0.0
        for row, dual in zip(rows, row_duals, strict=True):
            reduced[row.columns] += dual * row.amounts
            size[row.columns] += dual * row.amounts
            bound -= dual * row.bound
            spread += dual * row.bound
        holders, of_column = columns.links
        np.subtract.at(reduced, holders, link_duals)
        np.add.at(size, holders, np.abs(link_duals))
        if columns.tables:
            reduced[columns.first_end :] += link_duals[of_column].sum(axis=1)
            size[columns.first_end :] += np.abs(link_duals)[of_column].sum(axis=1)
        reduced[~model.left] = size[~model.left] = np.nan
        starts = np.asarray([part.start for part in columns.parts], dtype=np.intp)
        least = np.fmin.reduceat(reduced, starts)
        bound += float(least.sum())
        spread += float(np.fmax.reduceat(size, starts).sum())
        rounding = 2.0**-52 * (16 + len(rows) + len(starts)) * spread
        distance = _distances(columns, reduced - np.repeat(least, [len(part) for part in columns.parts]))
        return Relaxation(bound - rounding, np.where(model.left, distance, np.inf))


@dataclass(frozen=True)
class _Scaled:
    """A row as floats, its largest amount 1."""

    columns: Indices
    amounts: Floats
    bound: float

    @staticmethod
    def of(row: Row) -> _Scaled:
        top = max(row.terms.amounts)
        amounts = np.asarray([amount / top for amount in row.terms.amounts])
        return _Scaled(np.asarray(row.terms.columns, dtype=np.intp), amounts, float(np.nextafter(row.bound / top, np.inf)))


def _distances(columns: Columns, reduced: Floats) -> Floats:
    """What a column adds at least: its own reduced cost, and in each table of a group's column the least that goes with it."""
    distance = reduced.copy()
    if not columns.tables:
        return distance
    holders, of_column = columns.links
    pairs = reduced[columns.first_end :]
    least = np.full(len(holders), np.inf)
    for side in range(2):
        np.fmin.at(least, of_column[:, side], pairs)
    np.add.at(distance, holders, least)
    distance[columns.first_end :] = pairs + (distance[columns.sides] - least[of_column]).sum(axis=1)
    return distance


def _duals(model: Model, cost: Floats, rows: list[_Scaled], effort: float) -> tuple[Floats, Floats]:
    """Multipliers of rows, not negative, and of links; 0 for all where the relaxation has no solution."""
    from ortools.linear_solver import linear_solver_pb2, pywraplp

    columns = model.columns
    holders, of_column = columns.links
    top = float(np.abs(cost).max()) or 1.0
    program = linear_solver_pb2.MPModelProto()
    bounds = np.where(model.left, np.inf, 0.0).tolist()
    program.variable.extend(
        linear_solver_pb2.MPVariableProto(lower_bound=0.0, upper_bound=bound, objective_coefficient=coefficient)
        for bound, coefficient in zip(bounds, (cost / top).tolist(), strict=True)
    )

    def add(low: float, high: float, at: Sequence[int], coefficients: Sequence[float]) -> None:
        program.constraint.add(lower_bound=low, upper_bound=high, var_index=at, coefficient=coefficients)

    for row in rows:
        visible = row.amounts > TINY
        add(-np.inf, row.bound, row.columns[visible].tolist(), row.amounts[visible].tolist())
    linked: list[list[int]] = [[] for _ in holders]
    for column, links in enumerate(of_column.tolist(), start=columns.first_end):
        for link in links:
            linked[link].append(column)
    for holder, pairs in zip(holders.tolist(), linked, strict=True):
        add(0.0, 0.0, [holder, *pairs], [-1.0] + [1.0] * len(pairs))
    for group in columns.groups:
        add(1.0, 1.0, list(group), [1.0] * len(group))
    solver = pywraplp.Solver.CreateSolver("GLOP")
    solver.LoadModelFromProto(program)
    solver.SetSolverSpecificParametersAsString(f"max_deterministic_time: {effort}")
    parameters = pywraplp.MPSolverParameters()
    parameters.SetIntegerParam(parameters.LP_ALGORITHM, parameters.DUAL)
    if solver.Solve(parameters) != pywraplp.Solver.OPTIMAL:
        return np.zeros(len(rows)), np.zeros(len(holders))
    duals = -top * np.asarray([row.dual_value() for row in solver.constraints()[: len(rows) + len(holders)]])
    return np.maximum(0.0, duals[: len(rows)]), duals[len(rows) :]
