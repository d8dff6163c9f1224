"""No byte outside of the caller's buffers is touched: they lie against pages that may not be accessed."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import pytest

import qcompiler as qc
from qcompiler.backend.library import _Options
from qcompiler.targets.target import available_targets, host_runs, load_target
from tests.guarded import Guarded

from .conftest import Digits

HOST_TARGETS = [name for name in available_targets() if host_runs(load_target(name))]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mprotect is called through glibc")


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("target", HOST_TARGETS)
@pytest.mark.parametrize("options", [{"batch_tile": 2}, {"input_layout": "NHWC", "bits": "w4a8"}])
def test_nothing_outside_of_the_buffers_is_touched(digits: Digits, target: str, at_end: bool, options: dict[str, object]) -> None:
    library = qc.compile(digits.model, calibration=digits.x_train[:64], target=target, **options)
    (inside, outside) = (library.inputs[0], library.outputs[0])
    codes = np.random.default_rng(0).integers(0, 256, (3, *inside.shape), dtype=np.uint8)
    expected = library.run_int(codes)
    x, y = Guarded(codes.nbytes, at_end), Guarded(3 * outside.sample_bytes, at_end)
    workspace = Guarded(-(-library.workspace_bytes // 64) * 64, at_end)
    ctypes.memmove(x.address, codes.ctypes.data, codes.nbytes)
    given = _Options(struct_bytes=ctypes.sizeof(_Options), threads=1)
    status = library._run(
        (ctypes.c_void_p * 1)(x.address), (ctypes.c_void_p * 1)(y.address), 3, workspace.address, ctypes.byref(given)
    )
    assert status == 0
    found = np.frombuffer(ctypes.string_at(y.address, 3 * outside.sample_bytes), dtype=outside.dtype)
    assert np.array_equal(found.reshape(expected.shape), expected)
