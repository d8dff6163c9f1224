"""arm64 libraries in a statically linked C program under qemu: the codes are the reference's, with 1 and 4 threads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qcompiler.interpret import quantize_input, run_integer
from qcompiler.ir.graph import Graph
from qcompiler.targets.target import available_targets, load_target
from tests.backend.c_program import CodesProgram, codes_program
from tests.real_models import evaluation_images
from tests.tools import CROSS, EMULATOR, need

from .conftest import Array, Compilation, Digits

pytestmark = pytest.mark.arm64
ARM64_TARGETS = [name for name in available_targets() if load_target(name).architecture == "aarch64"]
IMAGES = 16


def check(program: CodesProgram, graph: Graph, images: Array) -> None:
    """The program gives the reference's codes."""
    codes = quantize_input(graph.inputs[0], images)
    expected = run_integer(graph, [codes])[0]
    for threads in (1, 4):
        assert np.array_equal(program.run(codes, threads), expected)


@pytest.mark.parametrize("target", ARM64_TARGETS)
def test_digits(target: str, digits: Digits, compiled_digits: Compilation, tmp_path: Path) -> None:
    program = codes_program(compiled_digits.artifact(target), tmp_path)
    check(program, compiled_digits.graph, digits.x_test)


@pytest.mark.data
@pytest.mark.parametrize("target", ARM64_TARGETS)
@pytest.mark.parametrize(
    "name", ["resnet8", *(pytest.param(n, marks=pytest.mark.exhaustive) for n in ("resnet20", "efficientnet-lite0"))]
)
def test_real_model(
    name: str,
    target: str,
    data_folder: Path,
    compiled_real: Callable[[str], Compilation],
    tmp_path: Path,
) -> None:
    need(CROSS, EMULATOR)
    compilation = compiled_real(name)
    program = codes_program(compilation.artifact(target), tmp_path)
    check(program, compilation.graph, evaluation_images(name, data_folder, "test")[:IMAGES].floats())
