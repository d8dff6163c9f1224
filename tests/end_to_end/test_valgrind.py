"""Whole networks under memcheck, linked statically into a C program; their codes stay the reference's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import qcompiler as qc
from tests.backend.memcheck import TARGETS, memchecked

from .conftest import Array, Compilation, Digits, integer_dump


@pytest.mark.data
@pytest.mark.parametrize("target", TARGETS)
def test_resnet8(
    compiled_real: Callable[[str], Compilation], real_codes: Callable[[str], tuple[Array, Array]], tmp_path: Path, target: str
) -> None:
    codes, expected = real_codes("resnet8")
    artifact = compiled_real("resnet8").artifact(target)
    (found,) = memchecked(artifact, [codes[:3]], tmp_path)
    assert np.array_equal(found, expected[:3])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("threads", [1, 3])
def test_digits(compiled_digits: Compilation, digits: Digits, tmp_path: Path, target: str, threads: int) -> None:
    codes, expected = compiled_digits.reference(lambda: digits.x_test)
    artifact = qc.build(integer_dump(compiled_digits.folder), out=tmp_path / "net", target=target, batch_tile=4, progress=False)
    (found,) = memchecked(artifact, [codes[:7]], tmp_path, threads)
    assert np.array_equal(found, expected[:7])
