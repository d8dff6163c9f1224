"""Running an artifact from Python: exact codes, float in and out, threads, and errors instead of crashes."""

from __future__ import annotations

import gc
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompiler.backend.artifact import Artifact
from qcompiler.backend.library import Library, load
from qcompiler.errors import CompileError
from qcompiler.targets.target import host_architecture

Build = Callable[..., Artifact]
Meaning = Callable[..., np.ndarray]

pytestmark = pytest.mark.skipif(host_architecture() != "x86_64", reason="the library of these tests is for x86-64")


@pytest.fixture
def library(build: Build) -> Library:
    return Library(build(batch_tile=3).folder)


def codes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 16)).astype(np.uint8)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_codes(library: Library, meaning: Meaning, count: int, threads: int) -> None:
    x = codes(count)
    y = library.run_int(x, threads=threads)
    assert y.dtype == np.int16
    assert np.array_equal(y, meaning(x).reshape(count, 8, 16))


def test_any_strides(library: Library, meaning: Meaning) -> None:
    x = codes(6)
    transposed = np.ascontiguousarray(x.transpose(2, 1, 0)).transpose(2, 1, 0)
    assert np.array_equal(library.run_int(transposed), meaning(x))
    assert np.array_equal(library.run_int(x[::-2]), meaning(x[::-2]))


def test_floats(library: Library, meaning: Meaning) -> None:
    import torch

    x = np.random.default_rng(1).normal(0, 8, (5, 8, 16)).astype(np.float32)
    x[0, 0, :3] = [np.inf, -np.inf, 0.05]  # 0.05 is half a step: rounds up
    quantized = np.clip(np.floor(x.astype(np.float64) / 0.1 + 0.5) + 100, 0, 255).astype(np.uint8)
    wanted = ((meaning(quantized).astype(np.float64) + 3) * 2.0**-7).astype(np.float32)
    y = library(x)
    assert y.dtype == np.float32
    assert np.array_equal(y, wanted)
    assert np.array_equal(library(x.astype(np.float64)), wanted)
    tensor = library(torch.from_numpy(x).requires_grad_())
    assert tensor.dtype == torch.float32
    assert np.array_equal(tensor.numpy(), wanted)
    assert library(torch.zeros(2, 8, 16, dtype=torch.bfloat16)).shape == (2, 8, 16)
    assert library(np.zeros((0, 8, 16), np.float32)).shape == (0, 8, 16)


def test_eight_python_threads_on_one_library(library: Library, meaning: Meaning) -> None:
    wrong = []

    def work(seed: int) -> None:
        x = codes(7, seed)
        wanted = meaning(x)
        for repeat in range(50):
            if not np.array_equal(library.run_int(x, threads=1 + (seed + repeat) % 3), wanted):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_close_ends_the_threads(build: Build) -> None:
    def thread_count() -> int:
        """Once it is the same for a while: a thread that was joined may be listed a little longer."""
        counts: list[int] = []
        while len(counts) < 5 or len(set(counts[-5:])) > 1:
            counts.append(len(list(Path("/proc/self/task").iterdir())))
            time.sleep(0.01)
        return counts[-1]

    before = thread_count()
    with load(build().folder) as library:
        library.run_int(codes(1), threads=4)
        assert thread_count() == before + 3
    assert thread_count() == before
    with pytest.raises(CompileError) as caught:
        library.run_int(codes(1))
    assert str(caught.value) == "RUN009 at tiny\n  problem: the library is closed\n  remedy:  load it again"
    library = load(build().folder)
    library.run_int(codes(1), threads=3)
    del library
    gc.collect()
    assert thread_count() == before


def test_folder_may_go_once_the_library_is_loaded(build: Build, meaning: Meaning, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    shutil.copytree(build().folder, folder)
    with Library(folder) as library:
        shutil.rmtree(folder)
        assert np.array_equal(library.run_int(codes(2), threads=2), meaning(codes(2)))


X = codes(1)
PLACE = "tiny (input 'x')"


@pytest.mark.parametrize(
    ("arguments", "threads", "message"),
    [
        ((), 1, "RUN003 at tiny\n  problem: 0 arrays for 1 inputs\n  remedy:  give one array for each of: x [N, 8, 16]"),
        (
            (X.astype(np.int64),),
            1,
            f"RUN004 at {PLACE}\n  problem: codes are int64, not a numpy array of uint8\n"
            "  remedy:  give a numpy array of uint8; floats go to lib(x)",
        ),
        (
            ([1, 2],),
            1,
            f"RUN004 at {PLACE}\n  problem: codes are list, not a numpy array of uint8\n"
            "  remedy:  give a numpy array of uint8; floats go to lib(x)",
        ),
        (
            (X[0],),
            1,
            f"RUN005 at {PLACE}\n  problem: shape [8, 16] is not [N, 8, 16]\n"
            "  remedy:  give an array of shape [N, 8, 16]; one sample needs a batch in front, x[None]",
        ),
        (
            (np.zeros((1, 16, 8), np.uint8),),
            1,
            f"RUN005 at {PLACE}\n  problem: shape [1, 16, 8] is not [N, 8, 16]\n  remedy:  give an array of shape [N, 8, 16]",
        ),
        ((X,), 0, "RUN008 at tiny\n  problem: threads is 0\n  remedy:  give a whole number from 1 to 1024"),
    ],
)
def test_wrong_codes_are_errors(library: Library, arguments: tuple[Any, ...], threads: int, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        library.run_int(*arguments, threads=threads)
    assert str(caught.value) == message


def test_wrong_floats_are_errors(library: Library) -> None:
    import torch

    for x, found in ((X, "uint8"), (torch.zeros(1, 8, 16, dtype=torch.int32), "torch.int32"), ("x", "str")):
        with pytest.raises(CompileError) as caught:
            library(x)
        assert caught.value.code == "RUN004"
        assert caught.value.problem == f"values are {found}, not floats"
    x = np.zeros((2, 8, 16), np.float32)
    x[1, 2, 3] = np.nan
    with pytest.raises(CompileError) as caught:
        library(x)
    assert str(caught.value) == (
        f"RUN007 at {PLACE}\n  problem: 1 values are NaN, the first at [1, 2, 3]\n  remedy:  replace NaN before the network sees it"
    )


def test_codes_of_fewer_bits_than_their_container(build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "narrow"
    shutil.copytree(build().folder, folder)
    description = json.loads((folder / "net.json").read_text())
    description["inputs"][0]["bits"] = 4
    (folder / "net.json").write_text(json.dumps(description))
    with pytest.raises(CompileError) as caught:
        load(folder).run_int(np.full((1, 8, 16), 16, np.uint8))
    assert str(caught.value) == (
        f"RUN006 at {PLACE}\n  problem: codes go from 16 to 16, but u4 holds 0 to 15\n  remedy:  give codes of 4 bits"
    )


def test_no_pool(build: Build, meaning: Meaning) -> None:
    library = load(build(pool=False).folder)
    assert np.array_equal(library.run_int(X), meaning(X))
    with pytest.raises(CompileError) as caught:
        library.run_int(X, threads=2)
    assert caught.value.code == "RUN008"
    assert caught.value.problem == "threads is 2, but the library has no thread pool"


def test_folders_that_are_no_artifacts(build: Build, tmp_path: Path) -> None:
    with pytest.raises(CompileError) as caught:
        load(tmp_path)
    assert caught.value.code == "RUN001"
    assert caught.value.remedy == "name a folder that qcompiler build wrote, or build it again"
    folder = tmp_path / "broken"
    shutil.copytree(build().folder, folder)
    (folder / "libnet.so").write_bytes(b"nothing")
    with pytest.raises(CompileError) as caught:
        load(folder)
    assert caught.value.code == "RUN001"
    (folder / "net.json").write_text("{}")
    with pytest.raises(CompileError) as caught:
        load(folder)
    assert caught.value.problem == "net.json is not of format 1"


def test_library_of_another_machine(build: Build, tmp_path: Path) -> None:
    with pytest.raises(CompileError) as caught:
        load(build(target="arm64-neon").folder)
    assert caught.value.code == "RUN002"
    assert caught.value.problem == "the library is for aarch64, this machine is x86_64"
    folder = tmp_path / "future"
    shutil.copytree(build().folder, folder)
    description = json.loads((folder / "net.json").read_text())
    description["cpu_flags"] = ["sse2", "avx4096"]
    (folder / "net.json").write_text(json.dumps(description))
    with pytest.raises(CompileError) as caught:
        load(folder)
    assert caught.value.problem == "the library is for target 'x86-baseline', this CPU lacks avx4096"
