"""The tilings that a build uses: those that ship with the target, those measured here before, or those that are measured now.

What is measured is kept in one file in ``$QC_CACHE``, by default ``~/.cache/qcompiler``, for everything that it depends on:
target, CPU, versions. It is written in one step; a damaged file counts for nothing.

Errors: TILE002 the file cannot be written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from qcompiler.backend.tile_table import TileTable, shipped_tiles
from qcompiler.cost.machine import cpu_name, package_versions
from qcompiler.cost.table_cache import cache_folder
from qcompiler.cost.tile_search import search_tiles
from qcompiler.cost.trace import Trace
from qcompiler.errors import CompileError
from qcompiler.progress import Progress
from qcompiler.replace_file import replace_file
from qcompiler.targets.target import Target


def tiles_for(
    traces: Sequence[Trace], target: Target, tune: str, cache: Path | None = None, progress: Progress | None = None
) -> TileTable:
    """The tilings for a network whose ``traces`` these are.

    ``tune``: "off" (what ships), "cached" (and, before that, what was measured on this machine), "full" (and what is not known
    yet is measured now). ``cache``: by default :func:`cache_folder`. Raises CompileError TILE002, and, for "full", COST005 where
    this machine does not run the target, TOOL001 and TOOL002.
    """
    shipped = shipped_tiles(target)
    if tune == "off":
        return shipped
    path = (cache or cache_folder()) / _file_name(target)
    known = read_tiles(path, target)
    if tune == "full":
        new = search_tiles(traces, known, shipped, progress)
        if new.kernels:
            known = read_tiles(path, target).updated(new)  # somebody else may have written meanwhile
            write_tiles(path, known)
    return shipped.updated(known)


def read_tiles(path: Path, target: Target) -> TileTable:
    """The table in a file; an empty one where there is none, or a damaged one."""
    try:
        return TileTable.from_json(path.read_text(encoding="utf-8"), target)
    except (OSError, UnicodeDecodeError, CompileError):
        return TileTable(target)


def write_tiles(path: Path, table: TileTable) -> None:
    """Writes the file in one step. Raises CompileError TILE002."""
    try:
        replace_file(path, table.to_json())
    except OSError as problem:
        what = f"the table of tilings cannot be written: {problem.strerror}"
        raise CompileError("TILE002", str(path), what, "name a folder that can be written with QC_CACHE") from None


def _file_name(target: Target) -> str:
    depends = (target, cpu_name(), sorted(package_versions().items()))
    return f"tiles-{target.name}-{hashlib.sha256(repr(depends).encode()).hexdigest()[:16]}.json"
