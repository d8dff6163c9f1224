"""Runs a library under valgrind's memcheck: no byte is read before it is written, none outside of the caller's blocks."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from qcompiler.backend.artifact import Artifact
from qcompiler.targets.target import host_refusal, load_target
from tests.backend.c_program import compile_program
from tests.tools import need

Array = np.ndarray[Any, Any]
RUN_EXACT: Final = Path(__file__).with_name("run_exact.c")
TARGETS: Final = ("x86-avx2", "x86-baseline")
"""What valgrind can run: it knows no AVX-512."""


def memchecked(artifact: Artifact, inputs: Sequence[Array], folder: Path, threads: int = 1) -> list[Array]:
    """The outputs for codes ``[N, ...]`` of all inputs; the test fails with valgrind's words, and is skipped where there is none."""
    target = load_target(artifact.description["target"])
    if refusal := host_refusal(target):
        pytest.skip(refusal)
    need("valgrind", "cc")
    name, samples = artifact.description["name"], len(inputs[0])
    ports = [(tuple(port["shape"]), np.dtype(port["dtype"])) for port in artifact.description["outputs"]]
    sizes = {
        "INPUT_BYTES": [x.nbytes // samples for x in inputs],
        "OUTPUT_BYTES": [prod(shape) * dtype.itemsize for shape, dtype in ports],
    }
    flags = [f"-D{key}={','.join(map(str, numbers))}" for key, numbers in sizes.items()]
    flags += ["-g", "-std=c11", f"-DMODEL={name}", f"-DMACRO={name.upper()}", f"-I{artifact.folder}"]
    # The library is linked statically; libc is not, for memcheck to see its malloc.
    program = compile_program(folder, RUN_EXACT, [*flags, str(artifact.folder / "libnet.a"), "-pthread"])
    (folder / "in").write_bytes(b"".join(np.ascontiguousarray(x).tobytes() for x in inputs))
    check = ["valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full", "--track-origins=no"]
    arguments = [str(program), str(threads), str(samples), str(folder / "in"), str(folder / "out")]
    done = subprocess.run([*check, *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr[-8000:]}"
    assert done.stderr == ""
    data, start, results = (folder / "out").read_bytes(), 0, []
    for shape, dtype in ports:
        size = samples * prod(shape) * dtype.itemsize
        results.append(np.frombuffer(data[start : start + size], dtype).reshape(samples, *shape))
        start += size
    return results
