"""Budgets: amounts in any spelling, and a clear error for what is none."""

from __future__ import annotations

from typing import Any

import pytest

from qcompiler.cli.budget import CommandLineBudget
from qcompiler.errors import CompileError
from qcompiler.search.budget import Budget, amount


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1500, 1500),
        ("1500", 1500),
        ("50%", 500),
        ("62.5 %", 625),
        ("1.5KiB", 1536),
        ("2 kB", 2000),
        (".5 MiB", 1 << 19),
        ("29%", 290),
        ("1.1 KB", 1100),
        (1e3, 1000),
        (None, None),
    ],
)
def test_amounts(value: Any, expected: int | None) -> None:
    assert amount("size", value, 1000) == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, 'BUDGET001 at budget\n  problem: there is no limit\n  remedy:  say at least one, as in Budget(size="50%")'),
        (
            {"size": "half"},
            "BUDGET001 at size\n  problem: 'half' is no amount\n"
            '  remedy:  write a number, "1.5 MiB", "200 kB", or a share such as "50%"',
        ),
        (
            {"latency_ms": -1.0},
            "BUDGET001 at latency_ms\n  problem: -1.0 is no limit\n  remedy:  give a number that is not negative",
        ),
        (
            {"size": "50%", "minimize": "speed"},
            "BUDGET002 at minimize\n  problem: 'speed' is none\n  remedy:  choose one of sensitivity, size, latency, bops",
        ),
        (
            {"size": "50%", "weight_bits": (8, 3)},
            "BUDGET002 at weight_bits\n  problem: (8, 3) are no choices of bits\n  remedy:  give some of 2, 4, 8",
        ),
        (
            {"size": "50%", "minimize": "latency"},
            "BUDGET002 at minimize\n  problem: the least latency is that of the fewest bits, whatever they cost in accuracy\n"
            "  remedy:  say accuracy_drop, sqnr_db or sensitivity as well",
        ),
    ],
)
def test_errors(options: dict[str, Any], text: str) -> None:
    with pytest.raises(CompileError) as caught:
        Budget(**options)
    assert str(caught.value) == text


def test_a_share_is_exact() -> None:
    assert amount("size", "29%", 100) == 29
    assert amount("size", "0.07%", 10_000) == 7


def test_errors_name_the_options_of_the_command_line() -> None:
    with pytest.raises(CompileError) as caught:
        CommandLineBudget(latency_ms=-1.0)
    assert str(caught.value) == (
        "BUDGET001 at --latency-ms\n  problem: -1.0 is no limit\n  remedy:  give a number that is not negative"
    )
    with pytest.raises(CompileError, match="^BUDGET001 at --size\n"):
        CommandLineBudget(size="half")
    with pytest.raises(CompileError, match="^BUDGET002 at --metric\n"):
        CommandLineBudget(size="50%", metric="best")


def test_size_is_minimized_where_only_the_drop_is_limited() -> None:
    assert Budget(accuracy_drop=1.0).goal == "size"
    assert Budget(sqnr_db=20.0, activation_memory="64 KiB").goal == "size"
    assert Budget(activation_memory="64 KiB").goal == "sensitivity"
    assert Budget(accuracy_drop=1.0, size="50%").goal == "sensitivity"
    assert Budget(accuracy_drop=1.0, minimize="bops").goal == "bops"
