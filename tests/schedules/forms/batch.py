"""Many kernels in one library, run on arrays: in process on x86 against guard pages, in one process under qemu-user on arm64."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qcompiler.backend.kernel import Kernel
from qcompiler.backend.tir import CompiledKernels, lower_kernel
from tests.schedules.harness import TARGETS, guarded, runs_in_process

Array = np.ndarray[Any, Any]
Call = tuple[int, Mapping[str, Array]]
"""The place of a kernel, and its arguments by name; y is what it writes to, and may be another argument as well."""

_MAIN = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
{wrappers}
static void (*const kernels[])(void **, int32_t, int32_t) = {{{names}}};
static int32_t number(FILE *in) {{ int32_t n; if (fread(&n, 4, 1, in) != 1) exit(1); return n; }}
int main(void) {{
    FILE *in = fopen("in", "rb"), *out = fopen("out", "wb");
    for (int32_t calls = number(in); calls; calls--) {{
        int32_t kernel = number(in), tasks = number(in), count = number(in), y = number(in), bytes[16];
        void *arguments[16];
        for (int32_t i = 0; i < count; i++) {{
            int32_t same = number(in);
            bytes[i] = number(in);
            if (same >= 0) {{ arguments[i] = arguments[same]; continue; }}
            arguments[i] = aligned_alloc(64, (bytes[i] + 64) / 64 * 64);
            if (fread(arguments[i], 1, bytes[i], in) != (size_t)bytes[i]) exit(2);
        }}
        kernels[kernel](arguments, tasks / 2, tasks);
        kernels[kernel](arguments, 0, tasks / 2);
        fwrite(arguments[y], 1, bytes[y], out);
    }}
    return fclose(out);
}}
"""


def results(kernels: Sequence[Kernel], calls: Sequence[Call], instruction_set: str, folder: Path) -> Iterator[Array]:
    """What every call leaves in y, whose tasks are run as two ranges. Files go to ``folder``."""
    target = TARGETS[instruction_set]
    functions = [lower_kernel(kernel.function, f"k{place}", target) for place, kernel in enumerate(kernels)]
    (folder / "kernels.o").write_bytes(CompiledKernels(functions, target).content)
    if not runs_in_process(instruction_set):
        yield from _emulated(kernels, calls, folder)
        return
    subprocess.run(["cc", "-shared", "-o", "kernels.so", "kernels.o"], cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "kernels.so"))
    for turn, (place, arrays) in enumerate(calls):
        kernel = kernels[place]
        copies = {id(arrays[name]): guarded(arrays[name], at_end=bool(turn % 2)) for name in kernel.arguments}
        pointers = [ctypes.c_void_p(copies[id(arrays[name])][0].address) for name in kernel.arguments]
        for begin, end in ((kernel.tasks // 2, kernel.tasks), (0, kernel.tasks // 2)):
            getattr(library, f"k{place}")(*pointers, begin, end)
        yield copies[id(arrays["y"])][1].copy()


def _emulated(kernels: Sequence[Kernel], calls: Sequence[Call], folder: Path) -> Iterator[Array]:
    wrappers = []
    for place, kernel in enumerate(kernels):
        count = len(kernel.arguments)
        wrappers.append(f"void k{place}({'void *, ' * count}int32_t, int32_t);")
        given = ", ".join(f"a[{i}]" for i in range(count))
        wrappers.append(f"static void w{place}(void **a, int32_t b, int32_t e) {{ k{place}({given}, b, e); }}")
    names = ", ".join(f"w{place}" for place in range(len(kernels)))
    (folder / "main.c").write_text(_MAIN.format(wrappers="\n".join(wrappers), names=names))
    content = [np.int32(len(calls)).tobytes()]
    for place, arrays in calls:
        kernel = kernels[place]
        given = [arrays[name] for name in kernel.arguments]
        content.append(np.array([place, kernel.tasks, len(given), kernel.arguments.index("y")], np.int32).tobytes())
        for index, array in enumerate(given):
            same = next((i for i in range(index) if given[i] is array), -1)
            content.append(np.array([same, array.nbytes], np.int32).tobytes() + (b"" if same >= 0 else array.tobytes()))
    (folder / "in").write_bytes(b"".join(content))
    subprocess.run(
        ["aarch64-linux-gnu-gcc", "-static", "-o", "main", "main.c", "kernels.o"], cwd=folder, check=True
    )  # fmt: skip
    subprocess.run(["qemu-aarch64-static", "./main"], cwd=folder, check=True)
    data, start = (folder / "out").read_bytes(), 0
    for _, arrays in calls:
        y = arrays["y"]
        yield np.frombuffer(data, y.dtype, y.size, start).reshape(y.shape)
        start += y.nbytes
