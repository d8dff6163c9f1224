"""A build that is interrupted, at moments spread over its time: no artifact, the old one, or the new one, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import qcompiler as qc
from qcompiler.backend.artifact import FILES, REPORT
from qcompiler.backend.library import Library
from qcompiler.targets.target import host_runs, load_target
from tests.wall.seed_models import shapes

MOMENTS = 8
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
Run = Callable[[list[str], int, float], tuple[int, float]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs a command line, interrupted by a signal (0: not) after so many seconds: exit code and seconds."""
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.end_to_end.interrupted_builds"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(arguments: list[str], number: int, seconds: float) -> tuple[int, float]:
            print(json.dumps([arguments, number, seconds]), file=process.stdin, flush=True)
            code, taken = json.loads(process.stdout.readline())  # type: ignore[union-attr]
            return code, taken

        yield ask
        process.stdin.close()


def content(folder: Path) -> dict[str, bytes] | None:
    """The files of an artifact, its report without the seconds that passes took; None where there is no folder."""
    if not folder.exists():
        return None
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    if REPORT in files:
        report = json.loads(files[REPORT])
        report["facts"].pop("pass seconds", None)
        files[REPORT] = json.dumps(report).encode()
    return files


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and signals")
@pytest.mark.skipif(not host_runs(load_target("x86-baseline")), reason="the library is loaded on x86-64")
def test_interrupted_builds(run: Run, tmp_path: Path) -> None:
    place, dumps = tmp_path / "place", tmp_path / "dumps"
    place.mkdir()
    samples = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
    qc.build(shapes(), calibration=samples, target="x86-baseline", out=tmp_path / "first", dump_ir=dumps)
    dump = max(dumps.glob("*.qir"))
    build = ["build", str(dump), "--target", "x86-baseline", "--out", str(place / "net")]

    def finished(options: list[str]) -> tuple[dict[str, bytes], float]:
        code, seconds = run([*build, *options], 0, 0.0)
        assert code == 0
        files = content(place / "net")
        assert files is not None
        assert set(files) == {*FILES, REPORT}
        return files, seconds

    new, seconds = finished([])
    old, _ = finished(["--batch-tile", "2"])
    assert old["net.json"] != new["net.json"]
    ended = set[int]()
    abandoned = set[str]()  # by killed builds, whose compilers may still be writing
    for moment in range(MOMENTS):
        number, over_old = SIGNALS[moment % len(SIGNALS)], moment % 2 == 0
        for path in place.iterdir():
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
        if over_old:
            (place / "net").mkdir()
            for name, data in old.items():
                (place / "net" / name).write_bytes(data)
        code, _ = run(build, number, seconds * (moment + 0.5) / MOMENTS)
        ended.add(code)
        found = content(place / "net")
        assert found in ((old if over_old else None), new), (moment, code, found and sorted(found))
        if found:
            Library(place / "net").close()
        left = [path.name for path in place.iterdir() if path.name != "net"]
        temporary = {path.name for path in (tmp_path / "temporary").iterdir()}
        if number == signal.SIGKILL:
            assert all(name.startswith(".") for name in left)
            abandoned |= temporary
        else:
            assert left == []
        assert temporary <= abandoned, (moment, number, code)
        assert not list((tmp_path / "temporary").glob("*/net.json"))
    assert -signal.SIGKILL in ended
    assert 128 + signal.SIGTERM in ended
    assert 130 in ended
