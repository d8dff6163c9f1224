"""``qcompiler profile`` on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qcompiler import cli
from qcompiler.bits import Bits
from qcompiler.cost.candidates import at_bits, candidates
from qcompiler.cost.latency_table import LatencyTable
from qcompiler.dump import Dumper
from qcompiler.targets.target import host_refusal, load_target

from .networks import small_graph


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, ["profile", *map(str, arguments)])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with dumps: calibrated, and integers."""
    if refusal := host_refusal(load_target("native")):
        pytest.skip(refusal)
    folder = tmp_path_factory.mktemp("profile")
    dumper = Dumper(folder)
    dumper.graph("calibrate", small_graph())
    dumper.graph("quantize", at_bits(small_graph(), Bits(4, 8)))
    return folder


def test_a_calibrated_dump(work: Path) -> None:
    target = load_target("native")
    options = ("--cache", work / "cache", "--seconds", 0)
    done = invoke(work / "00-calibrate.qir", *options, "--out", work / "table.json")
    assert done.exit_code == 0, done.output
    table = LatencyTable.read(work / "table.json")
    found = candidates(small_graph(), target)
    assert set(table.kernels) == set(found.keys)
    assert all(pair in done.stdout for pair in target.bit_pairs)
    assert all(weights in done.stdout for _, weights in found.layers)
    again = invoke(work / "00-calibrate.qir", *options, "--json")
    assert LatencyTable.from_json(again.stdout) == table


def test_a_dump_of_integers(work: Path) -> None:
    done = invoke(work / "01-quantize.qir", "--cache", work / "cache", "--seconds", 0, "--json")
    assert done.exit_code == 0, done.output
    kernels = json.loads(done.stdout)["kernels"]
    assert len(kernels) == 9
    assert sum(" weight_bits=4 " in key for key in kernels) == 5


def test_cli007_out_with_emit(work: Path) -> None:
    done = invoke(work / "00-calibrate.qir", "--out", work / "t.json", "--emit", work / "program")
    assert done.exit_code == 1
    assert done.stderr == (
        "CLI007 at --out\n"
        "  problem: with --emit nothing is measured here\n"
        "  remedy:  leave one away; the program prints the table when it runs\n"
    )


def test_an_emitted_program_as_json(work: Path) -> None:
    done = invoke(work / "01-quantize.qir", "--emit", work / "program", "--target", "arm64", "--json")
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data["files"] == ["profile.c", "kernels.o", "build.sh", "README.txt"]
    assert len(data["kernels"]) == 9
