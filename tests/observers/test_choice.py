"""Which observer serves which tensor, and every error of a wish."""

from __future__ import annotations

from typing import Any

import pytest

from qcompiler.errors import CompileError
from qcompiler.ir.text import parse_graph
from qcompiler.observers.choice import ObserverChoice, make_observer
from qcompiler.observers.entropy import EntropyObserver
from qcompiler.observers.extremes import MinMaxObserver, MovingAverageObserver
from qcompiler.observers.mse import MseObserver
from qcompiler.observers.percentile import PercentileObserver

TEXT = """graph @g stage=float (%x: f32[N,2]) {
  const %w: f32[2,2] = [0x1p+0, 0x0p+0, 0x0p+0, 0x1p+0]
  %a: f32[N,2] = linear(%x, %w)  # body.fc
  %b: f32[N,2] = linear(%a, %w)  # head.fc
  return %b
}
"""


def kinds(wish: Any) -> dict[str, type]:
    found = ObserverChoice.parse(wish).observers(parse_graph(TEXT))
    return {name: type(observer) for name, observer in found.items()}


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (None, (MinMaxObserver, MseObserver, MseObserver)),
        ("entropy", (EntropyObserver, EntropyObserver, EntropyObserver)),
        ({}, (MinMaxObserver, MseObserver, MseObserver)),
        ({"output": "minmax"}, (MinMaxObserver, MseObserver, MinMaxObserver)),
        (
            {"input": "percentile", "activation": "moving-average:0.01", "output": "entropy"},
            (PercentileObserver, MovingAverageObserver, EntropyObserver),
        ),
        ({"body.*": "entropy", "activation": "minmax"}, (MinMaxObserver, EntropyObserver, MseObserver)),
        ({"*": "minmax", "*.fc": "percentile:99", "x": "mse"}, (MseObserver, PercentileObserver, PercentileObserver)),
    ],
)
def test_kinds_and_patterns(wish: Any, expected: tuple[type, type, type]) -> None:
    assert kinds(wish) == dict(zip(("x", "a", "b"), expected, strict=True))


def test_parameters() -> None:
    observer = make_observer("percentile:99.9")
    assert isinstance(observer, PercentileObserver)
    assert observer.percentile == 99.9
    observer = make_observer("moving-average")
    assert isinstance(observer, MovingAverageObserver)
    assert observer.constant == 0.05


@pytest.mark.parametrize(
    ("wish", "problem"),
    [
        (
            "kl",
            "there is no observer 'kl'\n  remedy:  choose one of minmax, mse, entropy, moving-average, percentile",
        ),
        (
            {"input": "max"},
            "there is no observer 'max'\n  remedy:  choose one of minmax, mse, entropy, moving-average, percentile",
        ),
        ("mse:3", "observer 'mse' takes no parameter, but there is '3'\n  remedy:  write 'mse'"),
        (
            "percentile:50",
            "the parameter of 'percentile:50' is no number above 50 and at most 100\n  remedy:  write for example 'percentile:99.99'",
        ),
        (
            "moving-average:often",
            "the parameter of 'moving-average:often' is no number above 0 and at most 1\n  remedy:  write for example 'moving-average:0.05'",
        ),
        (3, "an observer is 3\n  remedy:  name it by a string"),
    ],
)
def test_wishes_that_cannot_be_understood(wish: Any, problem: str) -> None:
    with pytest.raises(CompileError) as caught:
        ObserverChoice.parse(wish)
    assert str(caught.value) == f"CALIB007 at observer\n  problem: {problem}"


def test_a_pattern_that_names_nothing() -> None:
    with pytest.raises(CompileError) as caught:
        kinds({"tail.*": "mse"})
    assert str(caught.value) == (
        "CALIB008 at observer\n"
        "  problem: the pattern 'tail.*' names no layer\n"
        "  remedy:  name a kind (input, activation, output) or one of the layers: body.fc, head.fc"
    )
