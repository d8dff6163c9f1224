"""Linear layers at batch 1, whose weights come from memory: microseconds and bytes of weights per second, beside ggml.

So many matrices are multiplied one after the other that none of them is in a cache when its turn comes; ours and ggml's take
turns. Kernels are those that ship, on one thread; weights lie in pages as small as those of a library, and in huge ones. From the
repository's root, after ``pip install -e '.[test,benchmark]'``, which builds ggml for this machine (ours alone without):

    python -m examples.benchmarks.linear
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from examples.benchmarks.ggml_linear import FORMATS, REPACKED, GgmlLinear
from examples.benchmarks.machine import cores, environment, read_bandwidth
from qcompiler.backend.kernel import ConvolutionSpec, Epilogue
from qcompiler.backend.tir import CompiledKernels, lower_kernel
from qcompiler.backend.toolchain import find_toolchain
from qcompiler.cost.harness import argument_bytes
from qcompiler.schedules.table import build_kernel
from qcompiler.targets.target import load_target

SIZES: Final = ((4096, 4096), (4096, 11008), (11008, 4096))
BITS: Final = (8, 4, 2)
BYTES: Final = 600 << 20  # of all matrices together
ROUNDS: Final = 9
HUGE_PAGE: Final = 2 << 20


@dataclass(frozen=True)
class Timing:
    """Of one matrix and one engine: over the rounds, microseconds of the mean of all matrices."""

    engine: str
    us: float
    minimum_us: float
    weight_bytes: int

    @property
    def rate(self) -> float:
        """10^9 bytes of weights per second, at the median."""
        return self.weight_bytes / self.us / 1e3


@dataclass(frozen=True)
class Row:
    """One size, in one kind of pages; ``ggml`` is None where it is not installed."""

    inputs: int
    outputs: int
    bits: int
    huge_pages: bool
    ours: Timing
    ggml: Timing | None


class OurLinear:
    """``count`` equal matrices at different places of memory, multiplied one after the other."""

    def __init__(self, inputs: int, outputs: int, bits: int, count: int, target: str, huge_pages: bool) -> None:
        epilogue = Epilogue(narrow=True, residual=None, out_dtype="uint8", pre_shifted=True, saturated=True)
        spec = ConvolutionSpec(1, 1, 1, inputs, outputs, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1, bits, epilogue)
        chosen = load_target(target)
        kernel = build_kernel(spec, chosen.instruction_set)
        content = CompiledKernels([lower_kernel(kernel.function, "linear", chosen.tvm_target)], chosen.tvm_target).content
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "linear.so"
            path.write_bytes(find_toolchain(chosen).link_shared(content, path.name, ["linear"]))
            self._run = ctypes.CDLL(str(path))["linear"]
        sizes = argument_bytes(kernel)
        self.bytes = sizes["weights"]
        memory = mmap.mmap(-1, count * self.bytes + HUGE_PAGE)
        memory.madvise(mmap.MADV_HUGEPAGE if huge_pages else mmap.MADV_NOHUGEPAGE)
        whole = np.frombuffer(memory, np.uint8)
        start = -whole.ctypes.data % HUGE_PAGE
        self._weights = whole[start : start + count * self.bytes]
        self._weights[:] = np.random.default_rng(0).integers(0, 256, len(self._weights), np.uint8)
        self._others = {name: mmap.mmap(-1, size) for name, size in sizes.items() if name != "weights"}
        places = {name: ctypes.addressof(ctypes.c_char.from_buffer(part)) for name, part in self._others.items()}
        address = self._weights.ctypes.data
        self._calls = [
            [ctypes.c_void_p({**places, "weights": address + index * self.bytes}[name]) for name in kernel.arguments]
            for index in range(count)
        ]
        self._tasks = kernel.tasks

    def run(self) -> None:
        """Multiplies all of them."""
        for call in self._calls:
            self._run(*call, 0, self._tasks)


def measure(inputs: int, outputs: int, bits: int, target: str, huge_pages: bool, ggml: Any | None) -> Row:
    """One size; ``ggml`` is the module of ggml-python."""
    count = max(2, BYTES * 8 // (inputs * outputs * bits))
    ours = OurLinear(inputs, outputs, bits, count, target, huge_pages)
    peer = GgmlLinear(ggml, inputs, outputs, bits, count, huge_pages) if ggml else None
    engines = [ours, peer] if peer else [ours]
    seconds: list[list[float]] = [[] for _ in engines]
    for _ in range(ROUNDS):
        for engine, times in zip(engines, seconds, strict=True):
            begin = time.perf_counter()
            engine.run()
            times.append((time.perf_counter() - begin) / count)
    names = ["ours", f"{FORMATS[bits]}{' repacked' if bits in REPACKED else ''}"]
    timings = [
        Timing(name, float(np.median(times)) * 1e6, min(times) * 1e6, engine.bytes)
        for name, engine, times in zip(names, engines, seconds, strict=False)
    ]
    if peer:
        peer.close()
    return Row(inputs, outputs, bits, huge_pages, timings[0], timings[1] if peer else None)


def _ggml() -> Any | None:
    try:
        import ggml
    except ModuleNotFoundError:
        return None
    return ggml


def main(
    target: Annotated[str, typer.Option(help="That this machine runs.")] = "native",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure and print."""
    os.sched_setaffinity(0, cores(1))
    facts = environment(("qcompiler", "apache-tvm", "ggml-python")) | {"read_gb_per_s": read_bandwidth() / 1e9}
    ggml = _ggml()
    rows = [
        measure(inputs, outputs, bits, target, huge, ggml) for huge in (False, True) for inputs, outputs in SIZES for bits in BITS
    ]
    if as_json:
        print(json.dumps({"environment": facts, "rows": [asdict(row) for row in rows]}, indent=2))
        return
    table = Table(title=f"reading from memory: {facts['read_gb_per_s']:.1f} GB/s; medians, GB of weights", title_justify="left")
    for heading in ("inputs", "outputs", "bits", "pages", "us", "GB/s", "ggml's", "us", "GB/s", "ours : ggml", "minima"):
        table.add_column(heading, justify="right")
    for row in rows:
        pages = "huge" if row.huge_pages else "4 KB"
        cells = [str(row.inputs), str(row.outputs), str(row.bits), pages, f"{row.ours.us:,.0f}", f"{row.ours.rate:.1f}"]
        if peer := row.ggml:
            ratios = f"{row.ours.us / peer.us:.2f}", f"{row.ours.minimum_us / peer.minimum_us:.2f}"
            cells += [peer.engine, f"{peer.us:,.0f}", f"{peer.rate:.1f}", *ratios]
        table.add_row(*cells)
    console = Console(width=120 if not sys.stdout.isatty() else None)
    console.print(table)
    console.print(f"{facts['cpu']}, load {facts['load']:.2f}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
