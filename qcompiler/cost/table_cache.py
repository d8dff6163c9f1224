"""Latency tables that were measured here already: a network is measured once, and what it shares with others too.

One file in ``$QC_CACHE``, by default ``~/.cache/qcompiler``, for everything that numbers depend on: target, CPU, versions, and
how many bytes a pass of the network touches, in powers of two, since that says which caches its weights come from. It is
written in one step; a damaged file counts for nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from qcompiler.cost.candidates import Candidates
from qcompiler.cost.latency_table import LatencyTable, WholePass
from qcompiler.cost.machine import cpu_name, package_versions
from qcompiler.cost.measure import SECONDS, measure
from qcompiler.cost.trace import Trace
from qcompiler.errors import CompileError
from qcompiler.progress import Progress


def cache_folder() -> Path:
    """Where measurements are kept."""
    return Path(os.environ.get("QC_CACHE") or Path.home() / ".cache" / "qcompiler")


def measured_table(
    found: Candidates, cache: Path | None = None, seconds: float = SECONDS, progress: Progress | None = None
) -> LatencyTable:
    """The latencies of all candidates on this machine; what is not in the folder ``cache`` is measured and kept there.

    ``cache``: by default :func:`cache_folder`. Raises CompileError COST005 where this machine does not run the target, COST006
    where the folder cannot be written, TOOL001 and TOOL002.
    """
    path = (cache or cache_folder()) / _file_name(found)
    known = _read(path, found)
    missing = [trace for trace in found.distinct if not _covers(known, trace)]
    if missing:
        new = measure(missing, found.target, seconds, progress)
        known = _merged(_read(path, found), new)  # somebody else may have written meanwhile
        known.write(path)
    kernels = {key: known.kernels[key] for key in found.keys}
    passes = tuple(pass_ for trace in found.distinct if (pass_ := _pass(known, trace)))
    return LatencyTable(known.target, known.cpu, known.versions, kernels, passes)


def _file_name(found: Candidates) -> str:
    size = max((trace.touched_bytes for trace in found.traces.values()), default=0).bit_length()
    depends = (found.target, cpu_name(), sorted(package_versions().items()), size)
    return f"latency-{found.target.name}-{hashlib.sha256(repr(depends).encode()).hexdigest()[:16]}.json"


def _read(path: Path, found: Candidates) -> LatencyTable:
    try:
        return LatencyTable.read(path)
    except CompileError:
        return LatencyTable(found.target.name, cpu_name(), package_versions(), {})


def _pass(table: LatencyTable, trace: Trace) -> WholePass | None:
    calls: Mapping[str, int] = Counter(trace.keys)
    return next((known for known in table.passes if known.name == trace.name and known.calls == calls), None)


def _covers(table: LatencyTable, trace: Trace) -> bool:
    return _pass(table, trace) is not None and all(key in table.kernels for key in trace.keys)


def _merged(old: LatencyTable, new: LatencyTable) -> LatencyTable:
    """Both tables; where both know something, the new one."""
    others = [known for known in old.passes if all((known.name, known.calls) != (p.name, p.calls) for p in new.passes)]
    return LatencyTable(new.target, new.cpu, new.versions, {**old.kernels, **new.kernels}, (*others, *new.passes))
