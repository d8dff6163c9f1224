"""An interrupted analysis goes on where it was, and gives the table of an uninterrupted one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qcompiler.errors import CompileError
from qcompiler.sensitivity import cache as cache_module
from qcompiler.sensitivity.analyze import METRICS, sensitivities
from qcompiler.sensitivity.cache import Measured
from qcompiler.sensitivity.table import SensitivityTable
from tests.sensitivity.networks import Tiny, calibrated, samples_of

SAMPLES = samples_of(Tiny, 70)


class InterruptionError(Exception):
    pass


class Puts:
    """Counts what is measured, and interrupts it after ``limit`` units."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit: int | None = None) -> None:
        self.count = 0
        plain = Measured.put

        def put(measured: Measured, unit: str, numbers: list[float]) -> list[float]:
            if self.count == limit:
                raise InterruptionError
            self.count += 1
            return plain(measured, unit, numbers)

        monkeypatch.setattr(Measured, "put", put)


def analyze(metric: str, folder: Path | None, **options: object) -> SensitivityTable:
    return sensitivities(calibrated(Tiny), SAMPLES, metric, cache=folder, tolerance=0.0, maximum_probes=4, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", METRICS)
def test_resuming(metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = analyze(metric, None)
    with monkeypatch.context() as patch:
        Puts(patch, 1)
        with pytest.raises(InterruptionError):
            analyze(metric, tmp_path)
    (file,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        whole = Puts(patch)
        analyze(metric, None)
    with monkeypatch.context() as patch:
        rest = Puts(patch)
        assert analyze(metric, tmp_path) == expected
        assert rest.count == whole.count - 1
        assert analyze(metric, tmp_path) == expected
        assert rest.count == whole.count - 1
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_measured_together_is_kept_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analyze("kl", tmp_path)
    analyze("fisher", tmp_path)
    puts = Puts(monkeypatch)
    assert analyze("mse", tmp_path).weights != analyze("sqnr", tmp_path).weights
    assert analyze("mse", tmp_path, weight_bits=(4,)).weights["head.weight"].keys() == {4}
    analyze("taylor", tmp_path)
    assert puts.count == 0


def test_anything_else_is_measured_anew(tmp_path: Path) -> None:
    files = 0
    labels = np.arange(70) % 3
    for options in ({}, {"seed": 1}, {"labels": labels}, {"labels": (labels + 1) % 3}, {"weight_bits": (4,)}):
        analyze("fisher", tmp_path, **options)
        files += 1
        assert len(list(tmp_path.iterdir())) == files
    sensitivities(calibrated(Tiny), [SAMPLES[0][:64]], "fisher", cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == files + 1


def test_time_adds_up(tmp_path: Path) -> None:
    first = analyze("kl", tmp_path)
    assert first.seconds > 0
    assert analyze("kl", tmp_path).seconds == pytest.approx(first.seconds, abs=0.1)


def test_long_work_is_written_while_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "WRITE_SECONDS", -1.0)
    measured = Measured(tmp_path, "key")
    measured.put("a", [1.0])
    assert Measured(tmp_path, "key").get("a") == [1.0]
    assert [path.name for path in tmp_path.iterdir()] == ["key.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"units": 3}', '{"units": {"a": ["x"]}}', "\ud800"])
def test_a_damaged_file_counts_for_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with Measured(tmp_path, "key") as measured:
        assert measured.get("a") is None
        measured.put("a", [0.1, 1e300])
    assert Measured(tmp_path, "key").get("a") == [0.1, 1e300]


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(CompileError) as caught:
        analyze("kl", file)
    assert str(caught.value) == (
        f"SENS006 at cache={str(file)!r}\n"
        "  problem: measurements cannot be kept here: File exists\n"
        "  remedy:  name a folder that can be written, or none"
    )
