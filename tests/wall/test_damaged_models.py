"""Damaged ONNX files and odd torch modules: a right result or a clear error, nothing else.

``examples/benchmarks/fuzz_import.py`` runs as many as one likes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

import pytest
from onnx import checker

from qcompiler.importers.load import load_model
from tests.wall import isolated
from tests.wall.damage import FINE, Outcome
from tests.wall.damaged_models import damaged_model
from tests.wall.isolated import run_cases
from tests.wall.seed_models import SEEDS

CASES = range(60)


def test_sixty_cases() -> None:
    outcomes = list(run_cases(0, CASES, build_every=20))
    assert sorted(outcome.index for outcome in outcomes) == list(CASES)
    assert [outcome for outcome in outcomes if outcome.kind not in FINE] == []
    assert {outcome.kind for outcome in outcomes} == set(FINE)
    assert sum(outcome.kind == "right" for outcome in outcomes) >= 10


@pytest.mark.parametrize("seed", [seed for seed in SEEDS if seed.__name__ != "branches"])
def test_seeds_are_valid_and_imported(seed: object) -> None:
    model = seed()  # type: ignore[operator]
    checker.check_model(model)
    assert load_model(model).graph.nodes


def test_a_case_is_the_same_every_time() -> None:
    assert [str(damaged_model(Random(f"0.{index}"))) for index in range(20)] == [
        str(damaged_model(Random(f"0.{index}"))) for index in range(20)
    ]


def _bad_case(seed: int, index: int, build: bool, folder: Path, stage: object) -> Outcome:
    """What the isolation has to notice: a crash, a hang, too much memory."""
    if index == 0:
        os.abort()
    if index == 1:
        time.sleep(0.1)
        while True:
            pass
    if index == 2:
        bytearray(1 << 40)
    return Outcome(index, "nothing", "right", "")


def test_crashes_hangs_and_memory_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "TIME_LIMIT", 1.0)
    outcomes = {outcome.index: outcome for outcome in run_cases(0, range(4), build_every=0, check=_bad_case)}
    assert outcomes[0].kind == "crash"
    assert outcomes[0].detail == "SIGABRT in stage start"
    assert outcomes[1].kind == "time"
    assert outcomes[2].kind == "memory"
    assert outcomes[3].kind == "right"
