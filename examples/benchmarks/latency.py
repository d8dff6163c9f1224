"""Latency of our libraries beside OpenVINO, ONNX Runtime, ExecuTorch and LiteRT, on the same float models.

For every model, batch size and number of threads one process, pinned to as many cores, in which all engines take turns. Peers
take and give float, LiteRT int8; of ours the integer entry is timed, and with float in and out. From the repository's root, with
QC_DATA naming the folder of models and data, after ``pip install -e '.[test,benchmark]'``:

    python -m examples.benchmarks.latency
    python -m examples.benchmarks.latency --model resnet50 --batch 8 --threads 2
    python -m examples.benchmarks.latency --model resnet50 --threads 2 --busy 1   # one of the cores is taken by somebody else

LiteRT needs files that are made in an environment of its own, see :mod:`examples.benchmarks.export_tflite`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from examples.benchmarks.cases import MODELS, Case
from examples.benchmarks.engines import ENGINES, OURS, PACKAGES, PEERS, Setup, ours
from examples.benchmarks.machine import busy, cores, environment, peak_macs

BLOCK_SECONDS: Final = 0.02
"""An engine runs for about so long before the next has its turn: caches are as warm as in use."""
SETTLE_SECONDS: Final = 0.02
"""Until threads of the engine before, which may go on spinning, sleep; a run that is not timed follows."""


@dataclass(frozen=True)
class Timing:
    """One engine. Milliseconds for a batch; ``cosine``: of its outputs with the float model's; MACs are of one sample."""

    model: str
    batch: int
    threads: int
    engine: str
    runs: int
    median_ms: float
    minimum_ms: float
    late_ms: float  # 95 % of the runs are faster
    cosine: float
    macs: int
    peak: float | None  # MACs per second of all threads' cores

    @property
    def rate(self) -> float:
        """MACs per second."""
        return self.macs * self.batch / (self.median_ms * 1e-3)


def interleaved(engines: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of every run of every engine; they take turns (A B C A B C ...) until ``seconds`` are over."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    block = {}
    for name, run in engines.items():
        run()
        start = time.perf_counter()
        run()
        block[name] = max(1, round(BLOCK_SECONDS / (time.perf_counter() - start)))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, run in engines.items():
            time.sleep(SETTLE_SECONDS)
            run()
            for _ in range(block[name]):
                start = time.perf_counter_ns()
                run()
                times[name].append((time.perf_counter_ns() - start) / 1e6)
    return times


def cosine(a: Any, b: Any) -> float:
    """Cosine similarity of two arrays taken as vectors."""
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def measure(setup: Setup, without: frozenset[str], seconds: float, others: int, report: Connection) -> None:
    """Time all engines on one case in this process; tells ``report`` the name of each before it is made, then the timings.

    ``others``: processes that compute on the last of the cores meanwhile.
    """
    chosen = cores(setup.threads)
    os.sched_setaffinity(0, chosen)
    engines = {}
    for name, make in ENGINES.items():
        if name in without:
            continue
        report.send(name)
        try:
            engine = make(setup)
            engine.run()
            engines[name] = engine
        except Exception as error:
            if name in OURS:
                raise
            print(
                f"{setup.case.model}: without {name}: {type(error).__name__}: {str(error).splitlines()[0][:200]}", file=sys.stderr
            )
    report.send("the timed runs")
    peaks = [peak_macs()]
    with busy(max(chosen), others):
        times = interleaved({name: engine.run for name, engine in engines.items()}, seconds)
    peaks.append(peak_macs())
    peak = max((value * setup.threads for value in peaks if value), default=None)
    macs = sum(layer.macs for layer in ours(setup, "w8a8").report().layers)
    report.send(
        [
            Timing(
                setup.case.model,
                setup.case.batch,
                setup.threads,
                name,
                len(runs),
                float(np.median(runs)),
                min(runs),
                float(np.percentile(runs, 95)),
                cosine(engines[name].outputs(), setup.case.logits),
                macs,
                peak,
            )
            for name, runs in times.items()
        ]
    )


def timings(setup: Setup, seconds: float, others: int) -> list[Timing]:
    """Of all engines on one case; one that crashes its process is left out the next time."""
    context = multiprocessing.get_context("spawn")
    without: set[str] = set()
    while True:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=measure, args=(setup, frozenset(without), seconds, others, theirs), daemon=True)
        process.start()
        theirs.close()
        last: Any = "the start"
        try:
            while not isinstance(last, list):
                last = ours.recv()
        except EOFError:
            process.join()
            print(f"{setup.case.model}: {last} ended the process ({process.exitcode})", file=sys.stderr)
            if last in without or last.startswith("the "):
                raise RuntimeError(f"{setup.case.model}, batch {setup.case.batch}: {last} failed") from None
            without.add(last)
            continue
        process.join()
        return last


def table(found: list[Timing]) -> Table:
    """The timings of one case, with each median's ratio to the best peer's."""
    first = found[0]
    result = Table(title=f"{first.model}, batch {first.batch}, {first.threads} thread(s)", title_justify="left")
    for heading in (
        "engine",
        "runs",
        "median ms",
        "minimum ms",
        "95 % ms",
        "of the best peer",
        "G MAC/s",
        "of the peak",
        "cosine with fp32",
    ):
        result.add_column(heading, justify="left" if heading == "engine" else "right")
    best = min((timing.median_ms for timing in found if timing.engine in PEERS), default=float("nan"))
    for timing in found:
        result.add_row(
            timing.engine,
            f"{timing.runs:,}",
            f"{timing.median_ms:.3f}",
            f"{timing.minimum_ms:.3f}",
            f"{timing.late_ms:.3f}",
            f"{timing.median_ms / best:.2f}",
            f"{timing.rate / 1e9:.1f}",
            f"{timing.rate / timing.peak:.0%}" if timing.peak else "",
            f"{timing.cosine:.5f}",
        )
    return result


def main(
    data: Annotated[Path, typer.Option(envvar="QC_DATA", help="The folder of models and data.")],
    model: Annotated[list[str], typer.Option(help="Models to time.")] = [*MODELS],  # noqa: B006
    batch: Annotated[list[int], typer.Option(help="Samples of one run.")] = [1],  # noqa: B006
    threads: Annotated[list[int], typer.Option(help="And cores.")] = [1],  # noqa: B006
    seconds: Annotated[float, typer.Option(help="For each model, batch and number of threads.")] = 10.0,
    others: Annotated[int, typer.Option("--busy", help="Processes that compute on the last core meanwhile.")] = 0,
    target: Annotated[str, typer.Option(help="Of our libraries.")] = "native",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time and compare."""
    facts = environment(PACKAGES)
    console = Console(width=130 if not sys.stdout.isatty() else None)
    everything = []
    for name in model:
        for size in batch:
            with tempfile.TemporaryDirectory() as folder:
                for count in threads:
                    os.environ["OMP_NUM_THREADS"] = str(count)
                    found = timings(Setup(Case(name, size, data), count, Path(folder), target), seconds, others)
                    everything += found
                    if not as_json:
                        console.print(table(found))
    if as_json:
        print(json.dumps({"environment": facts, "timings": [asdict(timing) for timing in everything]}, indent=2))
        return
    packages = ", ".join(f"{package} {number}" for package, number in facts["versions"].items())
    console.print(f"{facts['cpu']}, load {facts['load']:.2f} at the start; {packages}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
