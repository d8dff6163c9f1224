"""Numbers that were measured already, in a folder: an interrupted analysis goes on where it was.

One JSON file for each key, written to a temporary name and renamed; the key is a hash of everything that the numbers depend on.
A file holds units of work by their names. A damaged file counts for nothing.

Errors: SENS006 the folder cannot be used.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np

from qcompiler.errors import CompileError
from qcompiler.ir.graph import Array, Graph
from qcompiler.ir.text import MemoryStore, print_graph
from qcompiler.replace_file import replace_file

FORMAT: Final = 1  # of the files and of what the units mean
WRITE_SECONDS: Final = 2.0  # between two writes: what a killed run loses at most, beside the unit it was at


def cache_key(graph: Graph, arrays: Sequence[Array], settings: Sequence[object]) -> str:
    """A hash of the graph with its constants, of the samples (and labels), and of settings that print as themselves."""
    digest = hashlib.sha256(repr((FORMAT, *settings)).encode())
    digest.update(print_graph(graph, MemoryStore()).encode())
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class Measured:
    """The units of one key; without a folder they are kept in memory only. A context: what is missing is written at its end."""

    def __init__(self, folder: Path | None, key: str = "") -> None:
        self._path = None if folder is None else folder / f"{key}.json"
        self._units: dict[str, list[float]] = {}
        self._earlier = 0.0
        self._begin = self._written = time.monotonic()
        self._changed = False
        if self._path is not None:
            self._read(self._path)

    @property
    def seconds(self) -> float:
        """How long the units took, those of earlier runs included."""
        return self._earlier + (time.monotonic() - self._begin if self._changed else 0.0)

    def get(self, unit: str) -> list[float] | None:
        """The numbers of ``unit``, or None where they are not known."""
        return self._units.get(unit)

    def put(self, unit: str, numbers: Iterable[float]) -> list[float]:
        """Keep ``numbers`` as those of ``unit``."""
        kept = self._units[unit] = [float(number) for number in numbers]
        self._changed = True
        if time.monotonic() - self._written > WRITE_SECONDS:
            self._write()
        return kept

    def __enter__(self) -> Measured:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._changed:
            self._write()

    def _read(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            read = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            self._units = {unit: list(map(float, numbers)) for unit, numbers in read.get("units", {}).items()}
            self._earlier = float(read.get("seconds", 0.0))
        except OSError as problem:
            raise _unusable(path, problem) from None
        except (ValueError, TypeError, AttributeError):
            self._units, self._earlier = {}, 0.0

    def _write(self) -> None:
        if self._path is None:
            return
        try:
            replace_file(self._path, json.dumps({"seconds": self.seconds, "units": self._units}))
        except OSError as problem:
            raise _unusable(self._path, problem) from None
        self._written = time.monotonic()


def _unusable(path: Path, problem: OSError) -> CompileError:
    return CompileError(
        "SENS006",
        f"cache={str(path.parent)!r}",
        f"measurements cannot be kept here: {problem.strerror or problem}",
        "name a folder that can be written, or none",
    )
