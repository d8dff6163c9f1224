"""Every error in full."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest

from qcompiler.allocate import Limit, Variable, Wording, allocate, pareto
from qcompiler.errors import CompileError

from .networks import COSTS, TWO, layers


def errors(*arguments: Any, **options: Any) -> str:
    with pytest.raises(CompileError) as caught:
        allocate(*arguments, **options)
    return str(caught.value)


def test_a_limit_that_cannot_be_kept() -> None:
    assert errors(TWO, COSTS, limits={"weight_bytes": 1200}, where="net (budget)") == (
        "ALLOC002 at net (budget)\n"
        "  problem: no assignment keeps this limit:\n"
        "           weight_bytes at most 1,200: the least possible is 1,500\n"
        "  remedy:  raise the maximum of weight_bytes to 1,500"
    )
    assert errors(TWO, COSTS, limits={"weight_bytes": 1500}, pins={"conv1": "8"}, exclude={"conv2": ["8"]}) == (
        "ALLOC002 at allocation\n"
        "  problem: no assignment keeps this limit:\n"
        "           weight_bytes at most 1,500: the least possible is 2,000\n"
        "  remedy:  raise the maximum of weight_bytes to 2,000, or give up some of conv1=8, conv2!=8"
    )


def test_limits_that_clash() -> None:
    limits = [Limit("sensitivity", 0.25), Limit("weight_bytes", 2999), Limit("weight_bytes", minimum=10)]
    text = errors(TWO, COSTS, limits=limits)
    assert text == (
        "ALLOC002 at allocation\n"
        "  problem: no assignment keeps these limits together:\n"
        "           sensitivity at most 0.25: the least possible is 0.2, within the other limits 0.3000001\n"
        "           weight_bytes at most 2,999: the least possible is 1,500, within the other limits 3,000\n"
        "  remedy:  raise the maximum of sensitivity to 0.3000001, or raise the maximum of weight_bytes to 3,000"
    )
    assert allocate(TWO, COSTS, limits={"sensitivity": 0.3000001, "weight_bytes": 2999}).choice == {"conv1": "8", "conv2": "4"}
    assert errors(TWO, COSTS, limits=[Limit("weight_bytes", minimum=4000), Limit("sensitivity", 0.1)]) == (
        "ALLOC002 at allocation\n"
        "  problem: no assignment keeps this limit:\n"
        "           weight_bytes at least 4,000: the most possible is 3,000\n"
        "           other limits clash as well\n"
        "  remedy:  lower the minimum of weight_bytes to 3,000"
    )


def test_limits_in_words_of_the_callers_own() -> None:
    """A least total is rounded so that the limit holds if one writes it."""
    kib = Wording("--size", "1 KiB", Fraction(1024), " KiB")
    most = Wording("accuracy", "90%", Fraction(1, 1000), "%")
    limits = [Limit("weight_bytes", 1024, wording=kib), Limit("sensitivity", minimum=0.9, wording=most)]
    assert errors(TWO, COSTS, limits=limits[:1]) == (
        "ALLOC002 at allocation\n"
        "  problem: no assignment keeps this limit:\n"
        "           --size at most 1 KiB: the least possible is 1.464844 KiB\n"
        "  remedy:  raise --size to 1.464844 KiB"
    )
    assert math.floor(Fraction("1.464844") * 1024) >= 1500 > math.floor(Fraction("1.464843") * 1024)
    text = errors(TWO, COSTS, limits=limits[1:], exclude={"conv1": "4"})
    assert "accuracy at least 90%: the most possible is 300%" in text
    assert "lower accuracy to 300%" in text


def test_nothing_to_choose() -> None:
    costs = {"sensitivity": {"conv1": [0.1, None], "conv2": [0.1, 0.2]}}
    assert errors(TWO, costs, pins={"conv2": "4"}, ties=[("conv1", "conv2")]) == (
        "ALLOC001 at allocation\n"
        "  problem: no choice is left: conv1 may have 8, 4; conv2 may have 4; the tables must have a number for it\n"
        "  remedy:  change pins, exclusions or ties, or give numbers for more choices"
    )
    variables = [Variable(name, ("8", "4")) for name in ("a", "b", "c", "d")]
    differ = [[None, 0], [0, math.inf]]
    pairs = {"latency_ns": {("a", "b"): differ, ("b", "c"): differ, ("a", "c"): differ, ("c", "d"): differ}}
    assert errors(variables, {"sensitivity": {v.name: [0, 0] for v in variables}}, pairs, {"latency_ns": 1}) == (
        "ALLOC001 at allocation\n"
        "  problem: no choices go together in the tables of a x b, a x c, b x c\n"
        "  remedy:  give numbers for more pairs, or change pins, exclusions or ties"
    )


@pytest.mark.parametrize(
    ("row", "name", "problem"),
    [
        ([1, 2], "conv3", "there is no such variable"),
        ([1], "conv1", "1 numbers for 2 choices: 8, 4"),
        (None, "conv1", "the table has no row for this variable"),
    ],
)
def test_tables_that_do_not_fit(row: list[int] | None, name: str, problem: str) -> None:
    table = COSTS["sensitivity"] | {name: row}
    if row is None:
        del table[name]
    assert errors(TWO, {"sensitivity": table}) == (
        f"ALLOC003 at sensitivity of {name}\n"
        f"  problem: {problem}\n"
        "  remedy:  give one number for each choice of every variable, 0 where it costs nothing"
    )


@pytest.mark.parametrize(
    ("pair", "matrix", "problem"),
    [
        (("conv1", "fc"), [[1, 2], [3, 4]], "there is no variable fc"),
        (("conv1", "conv2"), [[1, 2]], "the matrix is 1 x 2, the choices are 2 x 2"),
        (("conv1", "conv2"), [[1, 2], [3]], "the matrix is 2 x 1 or 2, the choices are 2 x 2"),
    ],
)
def test_matrices_that_do_not_fit(pair: tuple[str, str], matrix: list[list[int]], problem: str) -> None:
    assert errors(TWO, COSTS, {"latency_ns": {pair: matrix}}) == (
        f"ALLOC003 at latency_ns of {pair[0]} x {pair[1]}\n"
        f"  problem: {problem}\n"
        "  remedy:  give one number for each choice of every variable, 0 where it costs nothing"
    )


@pytest.mark.parametrize("value", [math.nan, -math.inf, 1e300, "many"])
def test_what_is_no_number(value: Any) -> None:
    assert errors(TWO, {"sensitivity": {"conv1": [0, 1], "conv2": [0, value]}}) == (
        "ALLOC004 at sensitivity of conv2\n"
        f"  problem: the number for 4 is {value!r}\n"
        "  remedy:  give numbers below 1e+300; None or inf says that a choice cannot be had"
    )
    assert "the number for 4, 8 is" in errors(TWO, COSTS, {"latency_ns": {("conv1", "conv2"): [[0, 0], [value, 0]]}})


def test_resources_that_are_not_there() -> None:
    assert errors(TWO, COSTS, limits={"latency_ns": 5}) == (
        "ALLOC005 at latency_ns\n"
        "  problem: this resource is limited, and no table has numbers for it\n"
        "  remedy:  give its costs, or name one of these: sensitivity, weight_bytes"
    )
    assert "problem: this resource is to be minimized, and no table" in errors(TWO, COSTS, objective="loss")
    assert errors(TWO, COSTS, peak_costs={"weight_bytes": [{"conv1": [1, 2]}]}) == (
        "ALLOC005 at weight_bytes\n"
        "  problem: this resource has peak costs and costs that are added up\n"
        "  remedy:  give the two different names"
    )
    assert errors(TWO, COSTS, peak_costs={"live_bytes": []}) == (
        "ALLOC005 at live_bytes\n"
        "  problem: the peak is over no groups\n"
        "  remedy:  give at least one group, or leave it out"
    )  # fmt: skip
    with pytest.raises(CompileError, match="this resource is swept, and no table has numbers for it"):
        pareto(TWO, COSTS, resource="latency_ns")


def test_names_that_are_not_there() -> None:
    assert errors(TWO, COSTS, pins={"fc": "8"}) == (
        "ALLOC006 at fc\n"
        "  problem: a pin names this variable\n"
        "  remedy:  the variables are: conv1, conv2"
    )  # fmt: skip
    assert errors(TWO, COSTS, exclude={"conv2": ("4", "2")}) == (
        "ALLOC006 at conv2\n"
        "  problem: an exclusion names the choice '2'\n"
        "  remedy:  the choices are: 8, 4"
    )  # fmt: skip
    assert "ALLOC006 at fc\n  problem: a tie names this variable" in errors(TWO, COSTS, ties=[("conv1", "fc")])
    many = [Variable(f"v{i}", ("8",)) for i in range(12)]
    costs = {"sensitivity": {v.name: [0] for v in many}}
    assert "v8, v9, ... (12 in all)" in errors(many, costs, exclude={"fc": "8"})


@pytest.mark.parametrize(
    ("variables", "where", "problem"),
    [
        ([], "allocation", "there are no variables"),
        ([TWO[0], TWO[0]], "conv1", "two variables have this name"),
        ([Variable("conv1", ())], "conv1", "the variable has no choices"),
        ([Variable("conv1", ("8", "4", "8"))], "conv1", "a choice is there twice: 8, 4, 8"),
    ],
)
def test_variables_that_are_wrong(variables: list[Variable], where: str, problem: str) -> None:
    assert errors(variables, {}) == (
        f"ALLOC007 at {where}\n"
        f"  problem: {problem}\n"
        "  remedy:  give every variable a name of its own and different choices"
    )  # fmt: skip


def test_no_time_to_find_anything() -> None:
    assert errors(**layers(200, 4), time_limit=0.0) == (
        "ALLOC008 at allocation\n"
        "  problem: within a time limit of 0 s no assignment was found, nor proven that there is none\n"
        "  remedy:  raise time_limit, or some limit"
    )


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        (Limit("weight_bytes"), "the limit has neither a maximum nor a minimum"),
        (Limit("weight_bytes", math.nan), "the limit is not a number"),
        (Limit("weight_bytes", 10, 2000), "the minimum 2,000 is above the maximum 10"),
        (Limit("live_bytes", minimum=1), "a minimum of a peak is not supported"),
    ],
)
def test_limits_that_are_wrong(limit: Limit, problem: str) -> None:
    assert errors(TWO, COSTS, limits=[limit], peak_costs={"live_bytes": [{"conv1": [1, 2]}]}) == (
        f"ALLOC009 at {limit.resource}\n"
        f"  problem: {problem}\n"
        "  remedy:  write Limit(resource, maximum=...) with a finite number"
    )  # fmt: skip
