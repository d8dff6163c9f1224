"""The distinct kernels of a network: equal layers share one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from qcompiler.backend.kernel import Kernel, KernelSpec
from qcompiler.progress import Progress

if TYPE_CHECKING:
    from qcompiler.schedules.tiling import Tiling


class KernelTable:
    """Distinct kernels and their symbols, in the order in which they were first asked for."""

    def __init__(self, name: str, instruction_set: str, target: Mapping[str, object], progress: Progress | None) -> None:
        self._prefix = f"qc_{name}_k"
        self._instruction_set = instruction_set
        self._target = target
        self._progress = progress
        self._known: dict[tuple[KernelSpec, Tiling], tuple[str, Kernel]] = {}

    def get(self, spec: KernelSpec, tiling: Tiling = ()) -> tuple[str, Kernel]:
        from qcompiler.schedules.table import build_kernel

        known = (spec, tiling)
        if known not in self._known:
            kernel = build_kernel(spec, self._instruction_set, tiling)
            kind = re.sub(r"\W.*", "", kernel.schedule)  # its first word; the rest says how it is tiled
            self._known[known] = (f"{self._prefix}{len(self._known)}_{kind}", kernel)
            if self._progress:
                self._progress.advance("schedule")
        return self._known[known]

    def tilings(self) -> dict[str, Tiling]:
        """Those that were asked for, by symbol."""
        return {symbol: tiling for (_, tiling), (symbol, _) in self._known.items() if tiling}

    def functions(self) -> tuple[object, ...]:
        from qcompiler.backend.tir import lower_kernel

        return tuple(lower_kernel(kernel.function, symbol, self._target) for symbol, kernel in self._known.values())
