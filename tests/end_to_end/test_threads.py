"""Eight Python threads on one library of a whole network: each gets the results of its own inputs."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import qcompiler as qc
from qcompiler.targets.target import host_runs, load_target

from .conftest import Compilation, Digits, integer_dump

THREADS, REPEATS = 8, 12


@pytest.mark.skipif(not host_runs(load_target("x86-baseline")), reason="the library is for x86-64")
@pytest.mark.parametrize("pool", [True, False])
def test_eight_python_threads(compiled_digits: Compilation, digits: Digits, tmp_path: Path, pool: bool) -> None:
    codes, expected = compiled_digits.reference(lambda: digits.x_test)
    dump = integer_dump(compiled_digits.folder)
    qc.build(dump, out=tmp_path / "net", target="x86-baseline", batch_tile=2, pool=pool, progress=False)
    library = qc.Library(tmp_path / "net")
    floats = library(digits.x_test)
    assert np.array_equal(library.run_int(codes), expected)
    start, problems = threading.Barrier(THREADS), list[str]()

    def work(seed: int) -> None:
        generator = np.random.default_rng(seed)
        start.wait()
        for repeat in range(REPEATS):
            chosen = generator.integers(0, len(codes), 1 + generator.integers(0, 40))
            threads = 1 + (seed + repeat) % 3 if pool else 1
            try:
                if (seed + repeat) % 2:
                    right = np.array_equal(library(digits.x_test[chosen], threads=threads), floats[chosen])
                else:
                    right = np.array_equal(library.run_int(codes[chosen], threads=threads), expected[chosen])
            except Exception as problem:  # a thread's exception would only be printed
                problems.append(repr(problem))
                return
            if not right:
                problems.append(f"thread {seed}, run {repeat}: {len(chosen)} samples on {threads} threads")

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    library.close()
    assert problems == []
