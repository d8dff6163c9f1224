"""Tables of tilings: their file, what is said of damaged ones, and those that ship."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from qcompiler.backend.kernel import ConvolutionSpec, Epilogue
from qcompiler.backend.kernel_key import kernel_key
from qcompiler.backend.tile_table import TileTable, TunedTiling, shipped_tiles
from qcompiler.cost.tile_search import WORTH
from qcompiler.errors import CompileError
from qcompiler.schedules import convolution
from qcompiler.schedules.convolution_plan import plan_convolution
from qcompiler.schedules.table import fitting
from qcompiler.schedules.tile import MOST_TASKS
from qcompiler.schedules.tiling import parse_tiling, tasks_of
from qcompiler.targets.target import available_targets, load_target

TARGET = load_target("x86-avx2")
EPILOGUE = Epilogue(True, None, "uint8")
SPEC = ConvolutionSpec(1, 16, 16, 32, 32, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, 8, EPILOGUE)
KEY = kernel_key(SPEC, TARGET.name)


def table(tiling: str, key: str = KEY) -> TileTable:
    return TileTable(TARGET, {key: TunedTiling(tiling, 0.9, "a CPU", "2026-11-27")})


def test_a_table_comes_back_from_its_text() -> None:
    text = table("16:1x8x1/4x16x4").to_json()
    assert TileTable.from_json(text, TARGET) == table("16:1x8x1/4x16x4")
    assert '"tiling": "16:1x8x1/4x16x4"' in text
    assert KEY in text


def test_a_kernel_has_its_tiling_where_it_fits() -> None:
    assert table("16:1x8x1/4x16x4").tiling(SPEC) == parse_tiling("16:1x8x1/4x16x4")
    assert table("16:1x8x1/4x16x4").tiling(replace(SPEC, weight_bits=4)) == ()
    assert table("").tiling(SPEC) == ()
    for stale in ("8:1x8x1/4x8x4", "16:1x5x1/4x16x4", "16:1x16x2/16x16x4"):
        assert table(stale).tiling(SPEC) == ()


def test_what_makes_two_or_three_instructions_of_difference_shares_a_tiling() -> None:
    other = replace(SPEC, epilogue=replace(EPILOGUE, saturated=True, pre_shifted=False))
    assert table("16:1x8x1/4x16x4").tiling(other) == parse_tiling("16:1x8x1/4x16x4")


def test_the_newer_entry_counts() -> None:
    older, newer = table("16:1x8x1/4x16x4"), table("16:1x4x2/4x16x4")
    assert older.updated(newer) == newer
    both = older.updated(table("16:1x4x2/4x16x4", "another"))
    assert set(both.kernels) == {KEY, "another"}


def damaged(**changes: Any) -> str:
    return json.dumps({**json.loads(table("").to_json()), **changes})


ENTRY = {"tiling": "", "ratio": 1.0, "cpu": "c", "date": "d"}
DAMAGED = {
    "no JSON": ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    "a list": ("[]", "list indices must be integers or slices, not str"),
    "no format": ("{}", "there is no 'format'"),
    "another format": (damaged(format=2), "its format is 2, not 1"),
    "another target": (damaged(target="arm64-neon"), "its target is 'arm64-neon', not 'x86-avx2'"),
    "kernels": (damaged(kernels=[]), "'list' object has no attribute 'items'"),
    "fields": (damaged(kernels={"k": {"tiling": "", "ratio": 1.0}}), "an entry has ratio, tiling"),
    "tiling": (damaged(kernels={"k": {**ENTRY, "tiling": "8x8"}}), "'8x8' is no tiling such as 28:1x14x2/4x28x8"),
    "ratio": (damaged(kernels={"k": {**ENTRY, "ratio": float("nan")}}), "a ratio is nan"),
    "cpu": (damaged(kernels={"k": {**ENTRY, "cpu": None}}), "None is no text"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_tile001_damaged(name: str) -> None:
    text, problem = DAMAGED[name]
    with pytest.raises(CompileError) as caught:
        TileTable.from_json(text, TARGET, "a.json")
    assert str(caught.value) == (
        f"TILE001 at a.json\n  problem: it is no table of tilings: {problem}\n  remedy:  remove it, and tune again"
    )


def spec_of(key: str) -> ConvolutionSpec:
    """The convolution of a key."""
    _, kind, rest = key.split(" ", 2)
    assert kind == "convolution"
    words = dict(word.split("=") for word in rest.split())

    def value(name: str) -> Any:
        text = words[name]
        if text.startswith("("):
            return tuple(map(int, re.findall(r"\d+", text)))
        return int(text)

    names = [name for name in words if name not in ("narrow", "residual", "out_dtype")]
    residual = None if words["residual"] == "none" else words["residual"]
    epilogue = Epilogue(words["narrow"] == "yes", residual, words["out_dtype"])
    return ConvolutionSpec(**{name: value(name) for name in names}, epilogue=epilogue)


@pytest.mark.parametrize("name", available_targets())
def test_what_ships_fits_and_is_worth_it(name: str) -> None:
    target = load_target(name)
    for key, tuned in shipped_tiles(target).kernels.items():
        spec = spec_of(key)
        assert kernel_key(spec, name) == key
        assert fitting(spec, target.instruction_set, parse_tiling(tuned.tiling)), key
        assert tuned.ratio <= WORTH
        assert tuned.cpu
        assert date.fromisoformat(tuned.date) >= date(2026, 11, 27)


@pytest.mark.parametrize("name", available_targets())
def test_what_ships_leaves_enough_tasks_to_several_threads(name: str) -> None:
    target = load_target(name)
    for key, tuned in shipped_tiles(target).kernels.items():
        spec = spec_of(key)
        instruction = convolution.serving_instruction(spec, target.instruction_set)
        assert instruction is not None
        plan = plan_convolution(spec, instruction)
        assert plan is not None
        most = min(MOST_TASKS, tasks_of(plan.problem, plan.tiling))
        assert tasks_of(plan.problem, parse_tiling(tuned.tiling)) >= most, key


def test_the_parser_of_this_test() -> None:
    assert spec_of(KEY) == SPEC
