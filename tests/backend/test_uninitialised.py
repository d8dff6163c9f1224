"""No result depends on memory that nothing has written: padding channels are set by whatever makes a tensor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qcompiler.backend.artifact import write_artifact
from qcompiler.backend.lower import lower
from qcompiler.interpret import run_integer
from qcompiler.targets.target import host_architecture, load_target
from tests.backend.c_program import RUN_CODES, CodesProgram, compile_program
from tests.backend.integer_library import fills, read
from tests.backend.test_lower_movement import CODES, text, value
from tests.backend.test_lower_ranks import convolution
from tests.tools import need

INPUT = f"%x: u8[N,6,4,5] {CODES}"
CASES = {
    "concat": text(
        INPUT,
        value("s", "N,5,4,5", "slice(%x, axes=(1,), starts=(5,), steps=(-1,), stops=(0,))"),
        value("c", "N,17,4,5", "concat(%x, %s, %x, axis=1)"),
        value("d", "N,17,4,10", "concat(%c, %c, axis=3)"),
        convolution("y", "d", (17, 5), (1, 1), "(0, 0, 0, 0)", "N,5,4,10"),
        "%y",
    ),
    "reshapes": text(
        INPUT,
        value("flat", "N,120", 'reshape(%x, shape=("N", 120))'),
        value("few", "N,40,3", 'reshape(%flat, shape=("N", 40, 3))'),
        value("odd", "N,3,40", "transpose(%few, order=(0, 2, 1))"),
        value("nest", "N,8,15", 'reshape(%odd, shape=("N", 8, 15))'),
        value("wide", "N,8,1,15", 'reshape(%nest, shape=("N", 8, 1, 15))'),
        value("padded", "N,9,1,15", "pad(%wide, after=(0, 1, 0, 0), before=(0, 0, 0, 0), code=7)"),
        convolution("y", "padded", (9, 5), (1, 1), "(0, 0, 0, 0)", "N,5,1,15"),
        "%y",
    ),
}


@pytest.mark.skipif(host_architecture() != "x86_64", reason="valgrind runs the library for x86-64")
@pytest.mark.parametrize("name", CASES)
def test_valgrind_finds_nothing(name: str, tmp_path: Path) -> None:
    need("cc", "valgrind")
    target = load_target("x86-baseline")
    graph = read(CASES[name])
    artifact = write_artifact(lower(graph, target.instruction_set, target.tvm_target), target, tmp_path / "net")
    # Linked dynamically, as valgrind has to see malloc.
    flags = ["-std=c11", "-DMODEL=moves", "-DMACRO=MOVES", f"-I{artifact.folder}", str(artifact.folder / "libnet.a"), "-pthread"]
    port = artifact.description["outputs"][0]
    program = CodesProgram(compile_program(tmp_path, RUN_CODES, flags), (), tuple(port["shape"]), port["dtype"])
    checked = replace(program, emulator=("valgrind", "-q", "--error-exitcode=9"))
    x = fills(graph.inputs[0], 3)[0]
    np.testing.assert_array_equal(checked.run(x), run_integer(graph, [x])[0])
