"""Measures kernels in this process, the way a network runs them.

All kernels of all traces are one shared library. A trace is run like its network: its calls follow each other on the memory plan
of the network, and each has weights of its own. So before a layer's turn comes again, as many bytes have been touched as in the
network, and its weights come from where they come from there: L1, L2 or beyond. Caches are warm as in a loop over samples; the
first pass of a turn is not counted. The traces take turns, so that what else the machine does is spread over all of them.

What is reported of a kernel is the median, over the passes of all traces that have it, of the mean of its calls in a pass. The
cost of reading the clock is taken away. One sample, one thread.

Errors: COST005 this machine cannot run the target's code.
"""

from __future__ import annotations

import ctypes
import mmap
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from qcompiler.backend.elf import merge_objects
from qcompiler.backend.toolchain import find_toolchain
from qcompiler.cost.harness import EXPORTED, Harness, build_harness
from qcompiler.cost.latency_table import Latency, LatencyTable, WholePass
from qcompiler.cost.machine import cpu_name, package_versions
from qcompiler.cost.trace import Trace
from qcompiler.errors import CompileError
from qcompiler.interrupts import temporary_folder
from qcompiler.progress import Progress
from qcompiler.targets.target import Target, host_refusal

SECONDS: Final = 2.0
"""How long to measure, by default."""
PASSES: Final = 3
"""Passes of each kind that a trace does in its turn."""
FEWEST_ROUNDS: Final = 20

Array = np.ndarray[Any, np.dtype[np.int64]]


def measure(traces: Sequence[Trace], target: Target, seconds: float = SECONDS, progress: Progress | None = None) -> LatencyTable:
    """The latencies of all kernels of ``traces`` on this machine. Raises CompileError COST005, TOOL001 and TOOL002."""
    running = RunningTraces(traces, target, progress)
    end, rounds = time.monotonic() + seconds, 0
    while rounds < FEWEST_ROUNDS or time.monotonic() < end:
        running.round()
        rounds += 1
        if progress:
            progress.advance("measure")
    return running.table()


@dataclass
class RunningTraces:
    """The library of traces, loaded; :meth:`round` gives every trace a turn, :meth:`table` what was seen so far.

    ``same_weights``: see :func:`build_harness`. ``memories``: copies of the arena; which pages of the machine's memory one has
    decides what its second-level cache can hold, and changes a kernel's time by some percent.
    """

    traces: Sequence[Trace]
    target: Target
    progress: Progress | None = None
    same_weights: bool = False
    memories: int = 1
    _calls: list[list[Array]] = field(init=False)  # by trace: ns[passes, calls] of each turn
    _passes: list[list[Array]] = field(init=False)  # by trace: ns[passes] of each turn

    def __post_init__(self) -> None:
        refusal = host_refusal(self.target)
        if refusal:
            remedy = "measure for 'native', or write a program for the device with `qcompiler profile --emit`"
            raise CompileError("COST005", f"target {self.target.name!r}", refusal, remedy)
        harness = build_harness(self.traces, self.target, self.progress, self.same_weights)
        self._library = _load(harness, self.target)
        # Pages as small as those of a library's constants: numpy asks for huge ones.
        self._memory = [mmap.mmap(-1, harness.arena_bytes) for _ in range(self.memories)]
        self._arenas = [ctypes.addressof(ctypes.c_char.from_buffer(memory)) for memory in self._memory]
        for arena in self._arenas:
            self._library.qc_profile_prepare(ctypes.c_void_p(arena))
        self._calls = [[] for _ in self.traces]
        self._passes = [[] for _ in self.traces]

    def round(self) -> None:
        """A turn for every trace."""
        for index in range(len(self.traces)):
            self.turn(index)
            self._passes[index].append(self._turn("qc_profile_passes", index, (PASSES,)))

    def turn(self, index: int, memory: int = 0) -> Array:
        """A turn for one trace, call by call: the nanoseconds of all passes, ns[passes, calls]."""
        ns = self._turn("qc_profile_calls", index, (PASSES, len(self.traces[index].calls)), memory)
        self._calls[index].append(ns)
        return ns

    def table(self) -> LatencyTable:
        """The latencies of all turns."""
        samples: dict[str, list[Array]] = {}
        for found, turns in zip(self.traces, self._calls, strict=True):
            ns = np.concatenate(turns)
            keys = np.array(found.keys)
            for key in dict.fromkeys(found.keys):
                samples.setdefault(key, []).append(ns[:, keys == key].mean(axis=1))
        kernels = {key: _latency(np.concatenate(seen)) for key, seen in samples.items()}
        passes = tuple(
            WholePass(found.name, dict(Counter(found.keys)), float(np.median(np.concatenate(turns))))
            for found, turns in zip(self.traces, self._passes, strict=True)
        )
        return LatencyTable(self.target.name, cpu_name(), package_versions(), kernels, passes)

    def call_ns(self, index: int) -> Array:
        """The median nanoseconds of every call of a trace, in order."""
        return np.asarray(np.median(np.concatenate(self._calls[index]), axis=0))

    def _turn(self, function: str, index: int, shape: tuple[int, ...], memory: int = 0) -> Array:
        ns: Array = np.empty(shape, dtype=np.int64)
        self._library[function](ctypes.c_void_p(self._arenas[memory]), index, PASSES, ctypes.c_void_p(ns.ctypes.data))
        return ns


def _latency(ns: Array) -> Latency:
    low, median, high = np.percentile(ns, (25, 50, 75))
    return Latency(float(median), float(low), float(high), len(ns))


def _load(harness: Harness, target: Target) -> Any:
    """The harness as a library in this process."""
    toolchain = find_toolchain(target)
    content, _ = toolchain.compile_c(harness.source, "profile.c")
    linked = toolchain.link_shared(merge_objects([content, harness.kernels], EXPORTED), "libprofile.so", EXPORTED)
    with temporary_folder() as folder:
        (folder / "libprofile.so").write_bytes(linked)
        library = ctypes.CDLL(str(folder / "libprofile.so"))
    for name in EXPORTED:
        library[name].restype = None
    return library
