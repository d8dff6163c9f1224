"""Sweeps: every point is an assignment that was run, none is worse than another in both, and files say the same."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import qcompiler as qc
from qcompiler.errors import CompileError
from tests.tuning.networks import network, samples


@pytest.fixture(scope="module")
def curve() -> Any:
    return qc.pareto(network(), calibration=samples(), points=4, budget=qc.Budget(size="100%", samples=16), progress=False)


def test_points_go_from_the_smallest_to_the_best(curve: Any) -> None:
    sizes = [point.weight_bytes for point in curve.points]
    losses = [point.distance for point in curve.points]
    assert 2 < len(sizes) <= 4 + 3
    assert sizes == sorted(set(sizes))
    assert losses == sorted(set(losses), reverse=True)
    assert curve.points[0].weight_bytes == curve.uniform["w2"].weight_bytes
    assert curve.points[-1].sqnr_db > curve.points[0].sqnr_db + 10
    assert set(curve.uniform) == {"w8", "w4", "w2"}
    assert set(curve.uniform["w4"].bits.values()) == {"w4a8"}


def test_no_uniform_choice_is_better_at_its_size(curve: Any) -> None:
    for uniform in curve.uniform.values():
        within = [point.distance for point in curve.points if point.weight_bytes <= uniform.weight_bytes]
        assert min(within) <= uniform.distance


def test_csv_and_picture(curve: Any, tmp_path: Path) -> None:
    rows = list(csv.DictReader(curve.to_csv().splitlines()))
    assert [row["choice"] for row in rows] == ["chosen"] * len(curve.points) + list(curve.uniform)
    assert [int(row["weight_bytes"]) for row in rows[: len(curve.points)]] == [p.weight_bytes for p in curve.points]
    curve.plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"by": "joy"}, "SEARCH004 at by\n  problem: 'joy' cannot be swept\n  remedy:  choose one of size, latency, bops"),
        ({"points": 1}, "SEARCH004 at points\n  problem: 1 is no number of points\n  remedy:  choose 2 to 64"),
    ],
)
def test_errors(options: dict[str, Any], text: str) -> None:
    with pytest.raises(CompileError) as caught:
        qc.pareto(network(), calibration=samples()[:8], **options)
    assert str(caught.value) == text
