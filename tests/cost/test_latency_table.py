"""Tables in files, and what is said of damaged ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qcompiler.cost.latency_table import Latency, LatencyTable, WholePass
from qcompiler.errors import CompileError

TABLE = LatencyTable(
    "x86-avx2",
    'a "CPU"',
    {"qcompiler": "0.1.0", "apache-tvm": "0.27"},
    {"a": Latency(10.5, 10.0, 11.0, 90), "b": Latency(200.0, 180.0, 250.0, 90)},
    (WholePass("w8a8", {"a": 2, "b": 1}, 230.0),),
)
REMEDY = "\n  remedy:  write it again with `qcompiler profile`"


def damaged(**changes: Any) -> str:
    return json.dumps({**json.loads(TABLE.to_json()), **changes})


def test_a_table_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.json"
    TABLE.write(path)
    assert LatencyTable.read(path) == TABLE
    assert [entry.name for entry in path.parent.iterdir()] == ["table.json"]
    assert TABLE.ns(["a", "b", "a"]) == 221.0


KERNEL = {"ns": 1.0, "low_ns": 1.0, "high_ns": 1.0, "samples": 9}
DAMAGED = {
    "no JSON": ("{", "it is no latency table: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    "no object": ("[]", "it is no latency table: list indices must be integers or slices, not str"),
    "no format": ("{}", "it is no latency table: there is no 'format'"),
    "no kernels": (
        '{"format": 1, "target": "t", "cpu": "", "versions": {}}',
        "the latency table is damaged: there is no 'kernels'",
    ),
    "text": (damaged(kernels={"a": {**KERNEL, "ns": "x"}}), "the latency table is damaged: a has the value 'x'"),
    "negative": (damaged(kernels={"a": {**KERNEL, "low_ns": -1.0}}), "the latency table is damaged: a has the value -1.0"),
    "not finite": (damaged(kernels={"a": {**KERNEL, "ns": float("nan")}}), "the latency table is damaged: a has the value nan"),
    "order": (
        damaged(kernels={"a": {**KERNEL, "high_ns": 0.5}}),
        "the latency table is damaged: the quartiles of a are 1.0 and 0.5, around 1.0",
    ),
    "a list of kernels": (damaged(kernels=[]), "the latency table is damaged: 'list' object has no attribute 'items'"),
    "target": (damaged(target=None), "the latency table is damaged: target has the value None"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_cost001_damaged(name: str, tmp_path: Path) -> None:
    text, problem = DAMAGED[name]
    (tmp_path / "table.json").write_text(text, encoding="utf-8")
    with pytest.raises(CompileError) as caught:
        LatencyTable.read(tmp_path / "table.json")
    assert str(caught.value) == f"COST001 at {tmp_path}/table.json\n  problem: {problem}{REMEDY}"


def test_cost001_no_file(tmp_path: Path) -> None:
    with pytest.raises(CompileError) as caught:
        LatencyTable.read(tmp_path / "no.json")
    assert str(caught.value) == (
        f"COST001 at {tmp_path}/no.json\n"
        "  problem: the latency table cannot be read: No such file or directory\n"
        "  remedy:  name a file that `qcompiler profile` wrote"
    )


def test_cost002_other_format() -> None:
    with pytest.raises(CompileError) as caught:
        LatencyTable.from_json(damaged(format=7))
    assert str(caught.value) == (
        f"COST002 at latency table\n  problem: its format is 7, this version of qcompiler reads 1{REMEDY}"
    )


def test_cost003_other_target() -> None:
    with pytest.raises(CompileError) as caught:
        TABLE.require_target("arm64-neon")
    assert str(caught.value) == (
        "COST003 at latency table\n"
        "  problem: it was measured for 'x86-avx2', the target is 'arm64-neon'\n"
        "  remedy:  measure again with `qcompiler profile --target arm64-neon`"
    )


def test_cost004_missing_kernels() -> None:
    with pytest.raises(CompileError) as caught:
        TABLE.ns(["a", "k1", "k2", "k3", "k1", "k4"])
    assert str(caught.value) == (
        "COST004 at latency table of 'x86-avx2'\n"
        "  problem: 4 of 5 kernels were not measured:\n"
        "           k1\n"
        "           k2\n"
        "           k3\n"
        "           ...\n"
        "  remedy:  measure this network with `qcompiler profile`, for this target and with this version of qcompiler"
    )


def test_cost006_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CompileError) as caught:
        TABLE.write(tmp_path / "file" / "table.json")
    assert str(caught.value) == (
        f"COST006 at {tmp_path}/file/table.json\n"
        "  problem: the latency table cannot be written: File exists\n"
        "  remedy:  name a file in a folder that can be written"
    )
