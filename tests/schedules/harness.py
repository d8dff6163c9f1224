"""Runs one kernel on arrays: in process on x86, under qemu-user on arm64."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompiler import arith
from qcompiler.backend.kernel import SCALARS, Epilogue, Kernel, Scalar
from qcompiler.backend.tir import CompiledKernels, lower_kernel
from qcompiler.targets.target import available_targets, load_target
from tests.guarded import Guarded

Array = np.ndarray[Any, Any]

TARGETS = {target.instruction_set: target.tvm_target for target in map(load_target, available_targets())}
"""TVM targets by instruction set."""

_ARM_TOOLS = ("qemu-aarch64-static", "aarch64-linux-gnu-gcc")
_X86_FLAGS = {
    "avx512vnni": {"avx512f", "avx512bw", "avx512vl", "avx512_vnni"},
    "avxvnni": {"avx_vnni"},
    "avx2": {"avx2"},
    "x86-64": {"sse2"},
}
_ENCODED_OTHERWISE = {"avx512_vnni", "avx512vl"}

_MAIN = """
#include <stdint.h>
#include <stdio.h>
void k({types}, int32_t, int32_t);
{buffers}
int main(int argc, char **argv) {{
    FILE *in = fopen(argv[1], "rb");
    {reads}
    fclose(in);
    k({names}, 0, {middle});
    k({names}, {middle}, {tasks});
    FILE *out = fopen(argv[2], "wb");
    fwrite(y, 1, sizeof y, out);
    return fclose(out);
}}
"""


def _host_flags() -> frozenset[str]:
    """What the CPU has; nothing where this is no x86-64 Linux machine."""
    info = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not info.exists():
        return frozenset()
    return frozenset(next((line for line in info.read_text().splitlines() if line.startswith("flags")), "").split())


if "avx_vnni" not in _host_flags() and _host_flags() >= _ENCODED_OTHERWISE:
    # The same kernels with the same instructions of 256 bits, which AVX-512 encodes in another way.
    TARGETS["avxvnni"] = TARGETS["avxvnni"] | {"mattr": ["+avx512vnni", "+avx512vl"]}
    _X86_FLAGS["avxvnni"] = _ENCODED_OTHERWISE


def runs_in_process(instruction_set: str) -> bool:
    """Whether this is a form of x86: others are emulated."""
    return instruction_set in _X86_FLAGS


def reason_to_skip(instruction_set: str) -> str | None:
    """Why kernels cannot run here; None if they can."""
    if instruction_set in _X86_FLAGS:
        flags = _host_flags()
        missing = sorted(_X86_FLAGS[instruction_set] - flags)
        if not flags:
            return f"{instruction_set} needs an x86-64 Linux machine"
        return f"this CPU has no {', '.join(missing)}" if missing else None
    missing = [tool for tool in _ARM_TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def instruction_sets(leave_out: Collection[str] = ()) -> Sequence[Any]:
    """The other instruction sets as pytest parameters, skipped with the reason where they cannot run."""
    parameters = []
    for name in (name for name in TARGETS if name not in leave_out):
        reason = reason_to_skip(name)
        marks = [pytest.mark.skip(reason=reason)] if reason else []
        if name not in _X86_FLAGS:
            marks.append(pytest.mark.arm64)
        parameters.append(pytest.param(name, marks=marks))
    return parameters


def scalars(**values: int) -> Array:
    """The ``scalars`` argument from names of :class:`Scalar` in lower case."""
    array = np.zeros(SCALARS, dtype=np.int32)
    for name, value in values.items():
        array[Scalar[name.upper()]] = value
    return array


def _with_bounds(
    values: dict[str, Array], array: Array, ends: Sequence[Array], condition: Callable[..., bool]
) -> dict[str, Array]:
    """``values`` with the narrowest bounds within ``ends``, which have to fulfil ``condition``; ``array`` are the scalars."""
    constants = [values[name].astype(np.int64) for name in ("multiplier", "pre_shift")]
    tail = [int(array[place]) for place in (Scalar.SHIFT, Scalar.Y_ZERO, Scalar.LO, Scalar.HI)]
    lower, upper = arith.saturation_bounds(*constants, *ends, *tail)
    assert condition(*constants, lower, upper, *tail)
    return values | {"lower": lower.astype(values["lower"].dtype), "upper": upper.astype(values["upper"].dtype)}


def saturated(values: dict[str, Array], array: Array) -> dict[str, Array]:
    """``values`` with bounds as saturated kernels want them; ``array`` are the scalars."""
    return _with_bounds(values, array, [values[name].astype(np.int64) for name in ("lower", "upper")], arith.saturates)


def short(values: dict[str, Array], array: Array, residual: bool = False) -> dict[str, Array]:
    """``values`` with bounds as short kernels take them to be; ``residual``: those that add another operand."""
    left = np.maximum(-values["pre_shift"], 0)  # then the code has to saturate before 16 bits do
    least = -(-(256 << int(array[Scalar.SHIFT])) // (arith.SHORT_LIMIT - (1 << left)))
    values["multiplier"] = np.where(left, np.maximum(values["multiplier"], least), values["multiplier"]).astype(np.int32)
    if residual:
        least, most = arith.short_bounds(values["pre_shift"].astype(np.int64))
        return values | {"lower": least.astype(values["lower"].dtype), "upper": most.astype(values["upper"].dtype)}
    return _with_bounds(values, array, arith.short_bounds(values["pre_shift"].astype(np.int64)), arith.is_short)


def short_factor(largest_multiplier: int, shift: int, zero: int) -> int:
    """The largest ``residual_multiplier`` of a short kernel with which no total overflows int32."""
    room = (1 << 31) - 1 - (arith.SHORT_LIMIT * largest_multiplier + (1 << (shift - 1)) + (zero << shift))
    places = arith.other_places(shift)
    return min(room // 255 >> places, arith.SHORT_LIMIT - 1) << places


def stored_constants(epilogue: Epilogue, values: Mapping[str, Array], places: int) -> dict[str, Array]:
    """The constants of channels as kernels read them, whose sums are moved left by ``places``."""
    found = {name: values[name] for name in epilogue.channel_arguments}
    if epilogue.short:
        found["multiplier"] = arith.short_word(values["multiplier"], values["pre_shift"] + places + epilogue.left)
    return found


def guarded(array: Array, at_end: bool) -> tuple[Guarded, Array]:
    """A copy that begins at a page without access before it, or ends at (or less than 64 bytes before) one after it.

    It begins at a multiple of 64 bytes in both cases.
    """
    memory = Guarded(-(-array.nbytes // 64) * 64, at_end)
    copy = np.frombuffer((ctypes.c_ubyte * array.nbytes).from_address(memory.address), array.dtype).reshape(array.shape)
    copy[...] = array
    return memory, copy


def prepare(kernel: Kernel, instruction_set: str, folder: Path) -> Callable[[Mapping[str, Array]], Array]:
    """Compile a kernel in ``folder``; the result maps arguments (y with its shape and dtype) to y after all tasks, run as two ranges."""
    target = TARGETS[instruction_set]
    content = CompiledKernels([lower_kernel(kernel.function, "k", target)], target).content
    (folder / "k.o").write_bytes(content)
    if runs_in_process(instruction_set):
        subprocess.run(["cc", "-shared", "-o", str(folder / "k.so"), str(folder / "k.o")], check=True)
        function = ctypes.CDLL(str(folder / "k.so")).k

    def run_here(arrays: Mapping[str, Array], at_end: bool) -> Array:
        copies = {id(arrays[name]): guarded(arrays[name], at_end) for name in kernel.arguments}
        pointers = [ctypes.c_void_p(copies[id(arrays[name])][0].address) for name in kernel.arguments]
        function(*pointers, 0, kernel.tasks // 2)
        function(*pointers, kernel.tasks // 2, kernel.tasks)
        return copies[id(arrays["y"])][1].copy()

    def run(arrays: Mapping[str, Array]) -> Array:
        if not runs_in_process(instruction_set):
            copies = {id(arrays[name]): arrays[name].copy() for name in kernel.arguments}
            buffers = {name: copies[id(arrays[name])] for name in kernel.arguments}
            _run_emulated(kernel, buffers, folder)
            return buffers["y"]
        found = run_here(arrays, at_end=False)
        np.testing.assert_array_equal(run_here(arrays, at_end=True), found)
        return found

    return run


def _run_emulated(kernel: Kernel, buffers: Mapping[str, Array], folder: Path) -> None:
    text = _MAIN.format(
        types=", ".join("void *" for _ in buffers),
        buffers="\n".join(f"static _Alignas(64) unsigned char {name}[{buffer.nbytes}];" for name, buffer in buffers.items()),
        reads=" ".join(f"if (fread({name}, 1, sizeof {name}, in) != sizeof {name}) return 1;" for name in buffers),
        names=", ".join(buffers),
        middle=kernel.tasks // 2,
        tasks=kernel.tasks,
    )
    (folder / "in").write_bytes(b"".join(buffer.tobytes() for buffer in buffers.values()))
    if not (folder / "k").exists():
        (folder / "main.c").write_text(text)
        sources = [str(folder / "main.c"), str(folder / "k.o")]
        subprocess.run(["aarch64-linux-gnu-gcc", "-static", "-o", str(folder / "k"), *sources], check=True)
    subprocess.run(["qemu-aarch64-static", str(folder / "k"), str(folder / "in"), str(folder / "out")], check=True)
    buffers["y"].reshape(-1)[...] = np.frombuffer((folder / "out").read_bytes(), dtype=buffers["y"].dtype)
