"""Linear layers at batch 1, whose weights come from memory: microseconds and bytes of weights per second.

So many matrices are multiplied one after the other that none of them is in a cache when its turn comes. Kernels are those that
ship, on one thread; weights lie in pages as small as those of a library, and in huge ones. From the repository's root:

    python -m examples.benchmarks.linear
"""

from __future__ import annotations

import ctypes
import json
import mmap
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from examples.benchmarks.machine import environment, read_bandwidth
from qcompiler.backend.kernel import ConvolutionSpec, Epilogue
from qcompiler.backend.tir import CompiledKernels, lower_kernel
from qcompiler.backend.toolchain import find_toolchain
from qcompiler.cost.harness import argument_bytes
from qcompiler.schedules.table import build_kernel
from qcompiler.targets.target import load_target

SIZES: Final = ((4096, 4096), (4096, 11008), (11008, 4096))
BITS: Final = (8, 4, 2)
BYTES: Final = 600 << 20  # of all matrices together
ROUNDS: Final = 5
HUGE_PAGE: Final = 2 << 20


@dataclass(frozen=True)
class Row:
    """Medians over the rounds of the mean of all matrices; GB are 10^9 bytes."""

    inputs: int
    outputs: int
    bits: int
    huge_pages: bool
    us: float
    gb_per_s: float


def measure(inputs: int, outputs: int, bits: int, target: str, huge_pages: bool) -> Row:
    """One size."""
    epilogue = Epilogue(narrow=True, residual=None, out_dtype="uint8", pre_shifted=True, saturated=True)
    spec = ConvolutionSpec(1, 1, 1, inputs, outputs, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1, bits, epilogue)
    chosen = load_target(target)
    kernel = build_kernel(spec, chosen.instruction_set)
    content = CompiledKernels([lower_kernel(kernel.function, "linear", chosen.tvm_target)], chosen.tvm_target).content
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "linear.so"
        path.write_bytes(find_toolchain(chosen).link_shared(content, path.name, ["linear"]))
        run = ctypes.CDLL(str(path))["linear"]
    sizes = argument_bytes(kernel)
    size = sizes["weights"]
    count = max(2, BYTES // size)
    memory = mmap.mmap(-1, count * size + HUGE_PAGE)
    memory.madvise(mmap.MADV_HUGEPAGE if huge_pages else mmap.MADV_NOHUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)
    start = -whole.ctypes.data % HUGE_PAGE
    weights = whole[start : start + count * size]
    weights[:] = np.random.default_rng(0).integers(0, 256, len(weights), np.uint8)
    others = {name: mmap.mmap(-1, bytes_) for name, bytes_ in sizes.items() if name != "weights"}
    places = {name: ctypes.addressof(ctypes.c_char.from_buffer(part)) for name, part in others.items()}
    calls = [
        [ctypes.c_void_p({**places, "weights": weights.ctypes.data + index * size}[name]) for name in kernel.arguments]
        for index in range(count)
    ]
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for call in calls:
            run(*call, 0, kernel.tasks)
        seconds.append((time.perf_counter() - begin) / count)
    median = float(np.median(seconds))
    return Row(inputs, outputs, bits, huge_pages, median * 1e6, size / median / 1e9)


def main(
    target: Annotated[str, typer.Option(help="That this machine runs.")] = "native",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure and print."""
    facts = environment(("qcompiler", "apache-tvm")) | {"read_gb_per_s": read_bandwidth() / 1e9}
    rows = [measure(inputs, outputs, bits, target, huge) for huge in (False, True) for inputs, outputs in SIZES for bits in BITS]
    if as_json:
        print(json.dumps({"environment": facts, "rows": [asdict(row) for row in rows]}, indent=2))
        return
    table = Table(title=f"reading from memory: {facts['read_gb_per_s']:.1f} GB/s", title_justify="left")
    for heading in ("inputs", "outputs", "bits", "pages", "us", "GB/s of weights"):
        table.add_column(heading, justify="right")
    for row in rows:
        pages = "huge" if row.huge_pages else "4 KB"
        table.add_row(str(row.inputs), str(row.outputs), str(row.bits), pages, f"{row.us:,.0f}", f"{row.gb_per_s:.1f}")
    console = Console(width=100 if not sys.stdout.isatty() else None)
    console.print(table)
    console.print(f"{facts['cpu']}, load {facts['load']:.2f}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
