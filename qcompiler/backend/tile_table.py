"""Tilings that were faster than the model's choice when they were measured: the table that ships with a target, and its file.

A table is JSON, readable and sorted. The keys are those of kernels (:mod:`qcompiler.backend.kernel_key`); every entry says by how
much it was faster, on which CPU and when. What ships with a target stands beside its data file, as ``NAME.tiles.json``.

Errors: TILE001 a file is no table of tilings, or is damaged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from typing import Any, Final

from qcompiler.backend.kernel import KernelSpec
from qcompiler.backend.kernel_key import kernel_key
from qcompiler.errors import CompileError
from qcompiler.schedules.tiling import Tiling, parse_tiling
from qcompiler.targets.target import Target

FORMAT: Final = 1


@dataclass(frozen=True)
class TunedTiling:
    """``tiling``: as :func:`qcompiler.schedules.tiling.tiling_text` writes it, "" where nothing beat the model's choice.

    ``ratio``: its time over that of the model's choice, as measured on ``cpu`` on the day ``date`` (ISO 8601).
    """

    tiling: str
    ratio: float
    cpu: str
    date: str


@dataclass(frozen=True)
class TileTable:
    """``kernels``: by key. A kernel that is not in it has the model's tiling."""

    target: Target
    kernels: Mapping[str, TunedTiling] = field(default_factory=dict)

    def tiling(self, spec: KernelSpec) -> Tiling:
        """The tiling of a kernel; empty for the model's choice, and where what the table says does not fit the kernel."""
        from qcompiler.schedules.table import fitting

        known = self.kernels.get(kernel_key(spec, self.target.name))
        tiling = parse_tiling(known.tiling) if known and known.tiling else ()
        return tiling if tiling and fitting(spec, self.target.instruction_set, tiling) else ()

    def updated(self, newer: TileTable) -> TileTable:
        """Both tables; where both know a kernel, the newer one."""
        return TileTable(self.target, {**self.kernels, **newer.kernels})

    def to_json(self) -> str:
        """The text that :meth:`from_json` reads."""
        kernels = {key: asdict(found) for key, found in self.kernels.items()}
        data = {"format": FORMAT, "target": self.target.name, "kernels": kernels}
        return json.dumps(data, indent=1, sort_keys=True) + "\n"

    @staticmethod
    def from_json(text: str, target: Target, where: str = "table of tilings") -> TileTable:
        """The table of a text; ``where`` is its name in errors. Raises CompileError TILE001."""
        try:
            data = json.loads(text)
            for name, wanted in (("format", FORMAT), ("target", target.name)):
                if data[name] != wanted:
                    raise ValueError(f"its {name} is {data[name]!r}, not {wanted!r}")
            return TileTable(target, {key: _entry(found) for key, found in data["kernels"].items()})
        except (ValueError, TypeError, KeyError, AttributeError) as problem:
            what = f"there is no {problem}" if isinstance(problem, KeyError) else str(problem)
            raise CompileError("TILE001", where, f"it is no table of tilings: {what}", "remove it, and tune again") from None


def shipped_tiles(target: Target) -> TileTable:
    """The tilings that come with a target; none where it has no file. Raises CompileError TILE001."""
    name = f"{target.name}.tiles.json"
    file = files("qcompiler.targets").joinpath(name)
    return TileTable.from_json(file.read_text(encoding="utf-8"), target, name) if file.is_file() else TileTable(target)


def _entry(data: Mapping[str, Any]) -> TunedTiling:
    if set(data) != {known.name for known in fields(TunedTiling)}:
        raise ValueError(f"an entry has {', '.join(sorted(data))}")
    ratio, texts = data["ratio"], {name: _text(data[name]) for name in ("tiling", "cpu", "date")}
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio < math.inf:
        raise ValueError(f"a ratio is {ratio!r}")
    if texts["tiling"]:
        parse_tiling(texts["tiling"])
    return TunedTiling(ratio=float(ratio), **texts)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value
