"""The same integer dump gives the same bytes: from another checkout, folder, temporary folder, hash seed, locale and time zone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import qcompiler as qc
import qcompiler.passes
import qcompiler.schedules
import qcompiler.targets
from qcompiler.backend.artifact import FILES
from tests.tools import need_compiler

from .conftest import Digits

COMMAND = "import qcompiler, sys; print(qcompiler.__file__); from qcompiler.cli import main; main()"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another checkout: copies of the packages."""
    root = tmp_path_factory.mktemp("another checkout")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(qcompiler.__file__).parent, root / "qcompiler", ignore=ignore)
    for package in (qcompiler.passes, qcompiler.schedules, qcompiler.targets):
        name = package.__name__.rpartition(".")[2]
        shutil.copytree(package.__path__[0], root / "qcompiler" / name, ignore=ignore, dirs_exist_ok=True)
    return root


@pytest.fixture(scope="module")
def dumps(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The integer dump of the digits network by its bits."""
    made = {}
    for bits in ("w8a8", "w4a8"):
        folder = tmp_path_factory.mktemp(bits)
        options = {"bits": bits, "target": "x86-avx2", "name": "digits", "progress": False}
        qc.build(digits.model, calibration=digits.x_train[:64], out=folder / "net", dump_ir=folder / "dumps", **options)
        made[bits] = max((folder / "dumps").glob("*.qir"))
    return made


@pytest.mark.parametrize(("target", "bits"), [("x86-avx2", "w4a8"), ("arm64-neon", "w8a8")])
def test_same_bytes_from_another_checkout(dumps: dict[str, Path], checkout: Path, tmp_path: Path, target: str, bits: str) -> None:
    need_compiler(target)
    first = qc.build(dumps[bits], out=tmp_path / "first", target=target, progress=False)
    elsewhere = tmp_path / "some where" / "else"
    (elsewhere / "temporary").mkdir(parents=True)
    shutil.copytree(dumps[bits].parent, elsewhere / "dumps")
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "PYTHONHASHSEED": "4711",
        "TMPDIR": str(elsewhere / "temporary"),
        "LC_ALL": "C",
        "TZ": "Asia/Kolkata",
        "HOME": str(elsewhere),
        "SOURCE_DATE_EPOCH": "1",
    }
    arguments = ["build", f"dumps/{dumps[bits].name}", "--target", target, "--out", "second"]
    command = [sys.executable, "-P", "-c", COMMAND, *arguments]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(checkout))
    for file in FILES:
        content = (first.folder / file).read_bytes()
        assert content == (elsewhere / "second" / file).read_bytes(), file
        for trace in (str(tmp_path), str(checkout), str(Path(qcompiler.__file__).parent), "Kolkata"):
            assert trace.encode() not in content, (file, trace)
