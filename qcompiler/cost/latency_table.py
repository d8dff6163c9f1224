"""What kernels take on a target: numbers with their spread, and the file that holds them.

A table is measured here (:mod:`qcompiler.cost.measure`) or by a program on a device (:mod:`qcompiler.cost.device_program`); both
write the same JSON.

Errors: COST001 the file cannot be read or is damaged, COST002 it has another format, COST003 it is for another target,
COST004 kernels are missing, COST006 it cannot be written.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from qcompiler.errors import CompileError
from qcompiler.replace_file import replace_file

FORMAT: Final = 1
SHOWN: Final = 3  # missing kernels that an error names


@dataclass(frozen=True)
class Latency:
    """Nanoseconds of one call: the median and the quartiles of ``samples`` passes."""

    ns: float
    low_ns: float
    high_ns: float
    samples: int


@dataclass(frozen=True)
class WholePass:
    """A whole network's kernels in one go: ``calls`` counts its kernels by key, ``ns`` is the median of a pass."""

    name: str
    calls: Mapping[str, int]
    ns: float


@dataclass(frozen=True)
class LatencyTable:
    """``kernels``: by key (:mod:`qcompiler.backend.kernel_key`, with the tiling that is not the model's), one sample, one thread.

    ``cpu`` and ``versions`` say where from.
    """

    target: str
    cpu: str
    versions: Mapping[str, str]
    kernels: Mapping[str, Latency]
    passes: tuple[WholePass, ...] = field(default=())

    def ns(self, keys: Iterable[str]) -> float:
        """Nanoseconds of the calls together. Raises CompileError COST004 where kernels are missing."""
        wanted = tuple(keys)
        self.require_kernels(wanted)
        return sum(self.kernels[key].ns for key in wanted)

    def require_kernels(self, keys: Collection[str]) -> None:
        """COST004 where kernels are missing."""
        missing = list(dict.fromkeys(key for key in keys if key not in self.kernels))
        if missing:
            names = [*missing[:SHOWN], *(["..."] if len(missing) > SHOWN else [])]
            problem = f"{len(missing)} of {len(set(keys))} kernels were not measured:\n" + "\n".join(names)
            remedy = "measure this network with `qcompiler profile`, for this target and with this version of qcompiler"
            raise CompileError("COST004", f"latency table of {self.target!r}", problem, remedy)

    def require_target(self, target: str) -> None:
        """COST003 if the table is for another target."""
        if self.target != target:
            problem = f"it was measured for {self.target!r}, the target is {target!r}"
            raise CompileError("COST003", "latency table", problem, f"measure again with `qcompiler profile --target {target}`")

    def to_json(self) -> str:
        """The text that :meth:`from_json` reads."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True) + "\n"

    @staticmethod
    def from_json(text: str, where: str = "latency table") -> LatencyTable:
        """The table of a text; ``where`` is its name in errors. Raises CompileError COST001 or COST002."""
        remedy = "write it again with `qcompiler profile`"
        try:
            data = json.loads(text)
            found = data["format"]
        except (ValueError, TypeError, KeyError) as problem:
            what = f"it is no latency table: {_said(problem)}"
            raise CompileError("COST001", where, what, remedy) from None
        if found != FORMAT:
            problem_text = f"its format is {found!r}, this version of qcompiler reads {FORMAT}"
            raise CompileError("COST002", where, problem_text, remedy)
        try:
            return _table(data)
        except (ValueError, TypeError, KeyError, AttributeError) as problem:
            raise CompileError("COST001", where, f"the latency table is damaged: {_said(problem)}", remedy) from None

    def write(self, path: Path) -> None:
        """Writes the file in one step. Raises CompileError COST006."""
        try:
            replace_file(path, self.to_json())
        except OSError as problem:
            what = f"the latency table cannot be written: {problem.strerror}"
            raise CompileError("COST006", str(path), what, "name a file in a folder that can be written") from None

    @staticmethod
    def read(path: Path | str) -> LatencyTable:
        """The table of a file. Raises CompileError COST001 or COST002."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            what = f"the latency table cannot be read: {_said(problem)}"
            raise CompileError("COST001", str(path), what, "name a file that `qcompiler profile` wrote") from None
        return LatencyTable.from_json(text, str(path))


def _said(problem: Exception) -> str:
    """What an exception says of a file's content."""
    if isinstance(problem, OSError):
        return str(problem.strerror)
    return f"there is no {problem}" if isinstance(problem, KeyError) else str(problem)


def _table(data: Mapping[str, Any]) -> LatencyTable:
    """The table in parsed JSON; ValueError and the like where it is not as it should be."""
    texts = {name: _checked(data[name], str, name) for name in ("target", "cpu")}
    versions = {name: _checked(value, str, name) for name, value in data["versions"].items()}
    kernels = {key: _latency(key, found) for key, found in data["kernels"].items()}
    passes = tuple(WholePass(p["name"], dict(p["calls"]), _positive(p["ns"], p["name"])) for p in data["passes"])
    return LatencyTable(**texts, versions=versions, kernels=kernels, passes=passes)


def _latency(key: str, found: Mapping[str, Any]) -> Latency:
    low, ns, high = (_positive(found[name], key) for name in ("low_ns", "ns", "high_ns"))
    if not low <= ns <= high:
        raise ValueError(f"the quartiles of {key} are {low} and {high}, around {ns}")
    return Latency(ns, low, high, _checked(found["samples"], int, key))


def _checked(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{name} has the value {value!r}")
    return value


def _positive(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"{name} has the value {value!r}")
    return float(value)
