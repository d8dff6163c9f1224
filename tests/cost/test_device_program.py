"""The program that measures on a device: built and run here, and for arm64 under qemu."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qcompiler import cli
from qcompiler.cost.candidates import candidates
from qcompiler.cost.device_program import FILES, write_device_program
from qcompiler.cost.latency_costs import latency_costs
from qcompiler.cost.latency_table import LatencyTable
from qcompiler.cost.machine import package_versions
from qcompiler.dump import Dumper
from qcompiler.errors import CompileError
from qcompiler.targets.target import Target, host_refusal, load_target
from tests.backend.c_program import STRICT
from tests.tools import CROSS, EMULATOR, need

from .networks import small_graph


def run(folder: Path, compiler: str, emulator: tuple[str, ...], flags: tuple[str, ...]) -> LatencyTable:
    """The table that the program prints."""
    subprocess.run([folder / "build.sh", *STRICT, *flags], check=True, env={**os.environ, "CC": compiler}, cwd="/")
    done = subprocess.run([*emulator, folder / "profile", "2"], check=True, capture_output=True, text=True, timeout=600)
    assert done.stderr == ""
    (folder / "table.json").write_text(done.stdout, encoding="utf-8")
    return LatencyTable.read(folder / "table.json")


def check(table: LatencyTable, target: Target) -> None:
    """Everything is there, as if it were measured in this process."""
    found = candidates(small_graph(), target)
    assert table.target == target.name
    assert table.versions == package_versions()
    assert table.cpu
    assert set(table.kernels) == set(found.keys)
    assert [whole.name for whole in table.passes] == ["w8a8", "w4a8", "w2a8"]
    assert all(whole.ns > 0 for whole in table.passes)
    assert all(latency.samples >= 6 for latency in table.kernels.values())
    assert all(ns >= 0 for by_bits in latency_costs(small_graph(), target, table).layers.values() for ns in by_bits.values())


def test_here(tmp_path: Path) -> None:
    target = load_target("native")
    need("cc")
    if refusal := host_refusal(target):
        pytest.skip(refusal)
    assert write_device_program(candidates(small_graph(), target), tmp_path / "program", "small") == FILES
    assert {path.name for path in (tmp_path / "program").iterdir()} == set(FILES)
    check(run(tmp_path / "program", "cc", (), ()), target)
    wrong = subprocess.run([tmp_path / "program" / "profile", "0"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "[rounds, 1 to 100000]" in wrong.stderr


@pytest.mark.arm64
@pytest.mark.parametrize("target", ["arm64", "arm64-dotprod"])
def test_on_arm64(target: str, tmp_path: Path) -> None:
    need(CROSS, EMULATOR)
    Dumper(tmp_path / "dumps").graph("calibrate", small_graph())
    dump = next((tmp_path / "dumps").glob("*.qir"))
    arguments = ["profile", str(dump), "--target", target, "--emit", str(tmp_path / "program")]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"written to {tmp_path}/program/: profile.c, kernels.o, build.sh, README.txt\n")
    assert f"on {load_target(target).name} (" in (tmp_path / "program" / "README.txt").read_text(encoding="utf-8")
    check(run(tmp_path / "program", CROSS, (EMULATOR,), ("-static",)), load_target(target))


def test_cost007_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CompileError) as caught:
        write_device_program(candidates(small_graph(), load_target("x86-avx2")), tmp_path / "file")
    assert str(caught.value) == (
        f"COST007 at emit='{tmp_path}/file'\n"
        "  problem: the program cannot be written: File exists\n"
        "  remedy:  name a folder that can be written"
    )
