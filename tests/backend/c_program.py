"""C programs around a library: compiled strictly, linked statically, run natively or under qemu."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompiler.backend.artifact import Artifact
from qcompiler.targets.target import host_refusal, load_target
from tests.tools import CROSS, EMULATOR, need

Array = np.ndarray[Any, Any]
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
RUN_CODES = Path(__file__).parent / "run_codes.c"


def compile_program(folder: Path, source: Path, flags: Sequence[str], command: str = "cc") -> Path:
    """``source`` compiled strictly into ``folder``."""
    program = folder / source.stem
    subprocess.run([command, *STRICT, "-O1", str(source), "-o", str(program), *flags], check=True)
    return program


@dataclass(frozen=True)
class CodesProgram:
    """``run_codes.c`` linked statically with a library of one input and one output."""

    program: Path
    emulator: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str

    def run(self, codes: Array, threads: int = 1, repeats: int = 1, timeout: float = 600.0) -> Array:
        """Output codes for input codes ``[N, ...]``; every repeat must give the same."""
        folder = self.program.parent
        (folder / "input").write_bytes(np.ascontiguousarray(codes).tobytes())
        numbers = map(str, (threads, len(codes), repeats))
        command = [*self.emulator, str(self.program), *numbers, str(folder / "input"), str(folder / "output")]
        done = subprocess.run(command, capture_output=True, timeout=timeout)
        assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr.decode()}"
        return np.fromfile(folder / "output", dtype=self.dtype).reshape(-1, *self.shape)


def codes_program(artifact: Artifact, folder: Path) -> CodesProgram:
    """The program for an artifact, in ``folder``; skips the test where it cannot be compiled or run."""
    target = load_target(artifact.description["target"])
    foreign = target.architecture == "aarch64" and host_refusal(target) is not None
    compiler, emulator = (CROSS, (EMULATOR,)) if foreign else ("cc", ())
    if not foreign and (refusal := host_refusal(target)):
        pytest.skip(refusal)
    need(compiler, *emulator)
    name: str = artifact.description["name"]
    flags = ["-std=c11", "-static", f"-DMODEL={name}", f"-DMACRO={name.upper()}", f"-I{artifact.folder}"]
    program = compile_program(folder, RUN_CODES, [*flags, str(artifact.folder / "libnet.a"), "-pthread"], compiler)
    port = artifact.description["outputs"][0]
    return CodesProgram(program, emulator, tuple(port["shape"]), port["dtype"])
