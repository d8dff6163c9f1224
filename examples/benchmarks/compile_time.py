"""Seconds and peak memory from a float model to a loaded library (to its files for another CPU), calibration included.

Also what comes of it: the bytes of the library beside those of its packed weight codes, and how much longer than a later
inference it takes to load the library and run it for the first time, where this machine can. Every measurement is in a fresh
process. The model and the calibration images are loaded before the clock starts; importing tvm is part of the time, importing
torch is not. Run from the repository's root:

    python -m examples.benchmarks.compile_time
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

SAMPLES = 64
LATER = 20  # inferences after the first


@dataclass(frozen=True)
class Figures:
    """Seconds of wall time and of CPU time (children included), and peak resident memory in MiB before and after.

    ``packed_mb`` and ``library_mb``: 10^6 bytes of weight codes and of libnet.so. ``start_ms``: to load the library and run it
    once, less a later run, the file being in the page cache; None where this machine does not run it.
    """

    model: str
    target: str
    samples: int
    cores: int
    seconds: float
    cpu_seconds: float
    loaded_mib: float
    peak_mib: float
    packed_mb: float
    library_mb: float
    start_ms: float | None


def _start_ms(folder: Path) -> float:
    """In this process, into which the library has not been loaded yet."""
    import numpy as np

    import qcompiler as qc

    description = json.loads((folder / "net.json").read_text(encoding="utf-8"))["inputs"]
    load = qc.Library  # imported by now
    codes = [np.zeros((1, *port["shape"]), port["dtype"]) for port in description]
    marks = [time.perf_counter()]
    with load(folder) as library:
        for _ in range(LATER + 1):
            library.run_int(*codes)
            marks.append(time.perf_counter())
    first, *later = np.diff(marks)
    return float(first - np.median(later)) * 1e3


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(name: str, data: Path, target: str, samples: int) -> Figures:
    """Compile once in this process."""
    import qcompiler as qc
    from examples.benchmarks.cases import Case
    from qcompiler.report import read_report
    from qcompiler.targets.target import host_runs, load_target

    case = Case(name, 1, data)
    model, calibration = case.source, case.calibration[:samples]
    loaded, cpu, start = _peak_mib(), _cpu_seconds(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        artifact = qc.build(model, calibration=calibration, target=target, out=Path(folder) / "library", progress=False)
        seconds, cpu, peak = time.perf_counter() - start, _cpu_seconds() - cpu, _peak_mib()
        runs = host_runs(load_target(artifact.description["target"]))
        library_bytes = (artifact.folder / "libnet.so").stat().st_size
        packed = sum(layer.weight_bytes or 0 for layer in read_report(artifact.folder).layers)
        start_ms = _start_ms(artifact.folder) if runs else None
    cores = len(os.sched_getaffinity(0))
    return Figures(name, target, len(calibration), cores, seconds, cpu, loaded, peak, packed / 1e6, library_bytes / 1e6, start_ms)


def main(
    data: Annotated[Path, typer.Option(envvar="QC_DATA", help="The folder of models and data.")],
    model: Annotated[list[str] | None, typer.Option(help="A model; may be repeated.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="A target; may be repeated.")] = None,
    samples: Annotated[int, typer.Option(help="Calibration samples.")] = SAMPLES,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time compilation; every measurement has a process of its own."""
    context = multiprocessing.get_context("spawn")
    figures = []
    for name in model or ["efficientnet-lite0", "resnet50"]:
        for chosen in target or ["native"]:
            with context.Pool(1) as pool:
                figures.append(pool.apply(measure, (name, data, chosen, samples)))
    if as_json:
        print(json.dumps([asdict(row) for row in figures], indent=1))
        return
    table = Table(title=f"from model to library, load {os.getloadavg()[0]:.2f}", title_justify="left")
    headings = (
        "model",
        "target",
        "samples",
        "cores",
        "seconds",
        "CPU seconds",
        "MiB before",
        "peak MiB",
        "packed MB",
        "library MB",
        "start ms",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("model", "target") else "right")
    for row in figures:
        shown = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in asdict(row).values()]
        table.add_row(*shown)
    Console(width=120 if not sys.stdout.isatty() else None).print(table)


if __name__ == "__main__":
    typer.run(main)
