"""Seconds and peak memory from a float model to a loaded library (to its files for another CPU), calibration included.

Every measurement is in a fresh process. The model and the calibration images are loaded before the clock starts; importing
tvm is part of the time, importing torch is not. Run from the repository's root:

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


@dataclass(frozen=True)
class Figures:
    """Seconds of wall time and of CPU time (children included), and peak resident memory in MiB before and after."""

    model: str
    target: str
    samples: int
    cores: int
    seconds: float
    cpu_seconds: float
    loaded_mib: float
    peak_mib: float


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(name: str, data: Path, target: str, samples: int) -> Figures:
    """Compile once in this process."""
    import qcompiler as qc
    from qcompiler.targets.target import host_runs, load_target
    from tests.real_models import calibration_images, load_real_model

    model = load_real_model(name, data).model
    calibration = calibration_images(name, data, samples).floats()
    loaded, cpu, start = _peak_mib(), _cpu_seconds(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        artifact = qc.build(model, calibration=calibration, target=target, out=Path(folder) / "library", progress=False)
        if host_runs(load_target(artifact.description["target"])):
            qc.Library(artifact.folder).close()
    seconds = time.perf_counter() - start
    cores = len(os.sched_getaffinity(0))
    return Figures(name, target, len(calibration), cores, seconds, _cpu_seconds() - cpu, loaded, _peak_mib())


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
    for name in model or ["efficientnet-lite0"]:
        for chosen in target or ["native"]:
            with context.Pool(1) as pool:
                figures.append(pool.apply(measure, (name, data, chosen, samples)))
    if as_json:
        print(json.dumps([asdict(row) for row in figures], indent=1))
        return
    table = Table(title=f"from model to library, load {os.getloadavg()[0]:.2f}", title_justify="left")
    headings = ("model", "target", "samples", "cores", "seconds", "CPU seconds", "MiB before", "peak MiB")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("model", "target") else "right")
    for row in figures:
        shown = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in asdict(row).values()]
        table.add_row(*shown)
    Console(width=120 if not sys.stdout.isatty() else None).print(table)


if __name__ == "__main__":
    typer.run(main)
