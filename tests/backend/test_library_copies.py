"""Copies of a library: by ``pickle``, by ``copy``, and in the processes of a pool, when its folder is long gone."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qcompiler.backend.artifact import Artifact
from qcompiler.backend.library import Library, load
from qcompiler.errors import CompileError
from qcompiler.report import Report
from qcompiler.targets.target import host_architecture

Meaning = Callable[..., np.ndarray]

pytestmark = pytest.mark.skipif(host_architecture() != "x86_64", reason="the library of these tests is for x86-64")

X = np.random.default_rng(0).integers(0, 256, (5, 8, 16)).astype(np.uint8)


@pytest.fixture
def library(build: Callable[..., Artifact], tmp_path: Path) -> Library:
    """One with a report, whose folder is gone."""
    folder = tmp_path / "net"
    shutil.copytree(build().folder, folder)
    (folder / "net.report.json").write_text(Report("tiny", (), {"notes": ["loud"]}).to_json())
    loaded = load(folder)
    shutil.rmtree(folder)
    return loaded


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda library: pickle.loads(pickle.dumps(library))])
def test_a_copy_is_a_library_of_its_own(library: Library, meaning: Meaning, copied: Callable[[Library], Library]) -> None:
    other = copied(library)
    assert type(other) is Library
    assert (other.name, other.description, other.folder) == (library.name, library.description, library.folder)
    assert (other.inputs, other.outputs, other.report()) == (library.inputs, library.outputs, library.report())
    library.close()
    assert np.array_equal(other.run_int(X, threads=2), meaning(X))
    assert np.array_equal(copy.deepcopy(other).run_int(X), meaning(X))
    with pytest.raises(CompileError, match="RUN009"):
        copied(library)


def test_in_the_processes_of_a_pool(library: Library, meaning: Meaning) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(library.run_int, [X[:2], X[2:]])
    assert np.array_equal(np.concatenate(found), meaning(X))


def test_a_machine_that_cannot_run_it(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickle.dumps(library)
    monkeypatch.setattr("qcompiler.backend.library.host_architecture", lambda: "riscv64")
    with pytest.raises(CompileError, match="RUN002"):
        pickle.loads(data)
