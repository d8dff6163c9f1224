"""What the machine can do: int8 multiply-accumulates and bytes read from memory per second, measured by small C loops."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from qcompiler.cost.machine import cpu_name

ACCUMULATORS: Final = 24  # as in the source
ROUNDS: Final = 1_000_000
MACS: Final = 64  # of one vpdpbusd of 512 bits
REPETITIONS: Final = 5
STREAM_BYTES: Final = 256 << 20  # far beyond any cache

_SOURCE: Final = r"""
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

#ifdef __AVX512VNNI__
#define STEP(n) "vpdpbusd %%zmm30, %%zmm31, %%zmm" #n "\n\t"
double peak(long rounds)                               /* seconds */
{
    double start = now();
    for (long round = 0; round < rounds; round++)
        __asm__ volatile(
            STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7) STEP(8) STEP(9) STEP(10) STEP(11)
            STEP(12) STEP(13) STEP(14) STEP(15) STEP(16) STEP(17) STEP(18) STEP(19) STEP(20) STEP(21) STEP(22) STEP(23)
            : : : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
            "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23");
    return now() - start;
}
#endif

double stream(long bytes)                              /* seconds to read so many bytes, in huge pages where there are any */
{
    static unsigned char *memory;
    if (!memory) {
        memory = aligned_alloc(1 << 21, bytes);
        madvise(memory, bytes, MADV_HUGEPAGE);
        for (long i = 0; i < bytes; i += 64)
            memory[i] = 1;
    }
    typedef uint64_t vector __attribute__((vector_size(64)));
    vector sums[4] = {{0}};
    double start = now();
    for (long i = 0; i < bytes; i += 256)
        for (int k = 0; k < 4; k++)
            sums[k] += *(const vector *)(memory + i + 64 * k);
    double seconds = now() - start;
    vector sum = sums[0] + sums[1] + sums[2] + sums[3];
    __asm__ volatile("" : : "m"(sum));
    return seconds;
}
"""


@cache
def _loops() -> ctypes.CDLL:
    folder = Path(tempfile.mkdtemp(prefix="qcompiler-peak-"))
    source, library = folder / "peak.c", folder / "peak.so"
    source.write_text(_SOURCE, encoding="utf-8")
    subprocess.run([os.environ.get("CC", "cc"), "-O3", "-march=native", "-shared", "-fPIC", source, "-o", library], check=True)
    loops = ctypes.CDLL(str(library))
    source.unlink()
    library.unlink()
    folder.rmdir()
    return loops


def _best(function: str, amount: int) -> float:
    run = getattr(_loops(), function)
    run.restype, run.argtypes = ctypes.c_double, [ctypes.c_long]
    return min(run(amount) for _ in range(REPETITIONS))


def peak_macs() -> float | None:
    """Int8 multiply-accumulates per second of one core by ``vpdpbusd``, or None on a CPU without it."""
    if not hasattr(_loops(), "peak"):
        return None
    return ROUNDS * ACCUMULATORS * MACS / _best("peak", ROUNDS)


def read_bandwidth() -> float:
    """Bytes per second that one core reads from memory."""
    return STREAM_BYTES / _best("stream", STREAM_BYTES)


def cores(count: int) -> list[int]:
    """The first ``count`` cores that this process may run on."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < count:
        raise ValueError(f"{count} threads need {count} cores; this process may use {len(allowed)}")
    return allowed[:count]


@contextmanager
def busy(core: int, count: int) -> Iterator[None]:
    """Keeps a core busy with so many other processes."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    for other in others:
        os.sched_setaffinity(other.pid, {core})
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def environment(packages: Iterable[str]) -> dict[str, Any]:
    """What figures depend on."""
    return {"cpu": cpu_name(), "load": os.getloadavg()[0], "versions": versions(packages)}
