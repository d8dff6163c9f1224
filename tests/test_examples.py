"""The examples run as their first lines say (the demo is the README's first command, which CI runs)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import CROSS, EMULATOR, need

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(folder: Path, name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_compile_in_process(tmp_path: Path) -> None:
    text = run(tmp_path, "compile_in_process.py")
    accuracy = {name: float(value) for name, value in re.findall(r"^(\S.*?) +accuracy ([\d.]+)%", text, flags=re.MULTILINE)}
    assert set(accuracy) == {"fp32 (torch)", "int8 library", "4 bit weights in 1 and 2"}
    assert min(accuracy.values()) > 90
    assert accuracy["int8 library"] > accuracy["fp32 (torch)"] - 1


def test_inspect_passes(tmp_path: Path) -> None:
    text = run(tmp_path, "inspect_passes.py")
    assert "graph @digits stage=integer" in text
    assert "fold_affine" in text
    assert text.rstrip().endswith("the same outputs")


@pytest.mark.parametrize("target", ["native", pytest.param("arm64-dotprod", marks=[pytest.mark.arm64, pytest.mark.exhaustive])])
def test_build_for_device(tmp_path: Path, target: str) -> None:
    needed = (CROSS, EMULATOR) if target.startswith("arm64") else ("cc",)
    need(*needed)
    text = run(tmp_path, "build_for_device.py", target, "out")
    found = re.findall(r"^class (\d+), code (-?\d+), [\d.]+ ms with (\d) thread", text, flags=re.MULTILINE)
    assert [threads for _, _, threads in found] == ["1", "2"]
    assert len({(best, code) for best, code, _ in found}) == 1
    label = re.search(r"the label is (\d+)", text)
    assert label is not None
    assert found[0][0] == label[1]


def test_allocate_plain_tables(tmp_path: Path) -> None:
    text = run(tmp_path, "allocate_plain_tables.py")
    rows = dict(re.findall(r"^│ (layer\S+) +│ ([48 │]+)│$", text, flags=re.MULTILINE))
    assert len(rows) == 19
    assert all(rows[name] == rows[name.replace("downsample.0", "conv1")] for name in rows if "downsample" in name)
    assert text.count("optimal") == 6
    assert "ALLOC002 at resnet18 (budget)" in text
