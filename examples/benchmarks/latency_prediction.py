"""Latencies of whole networks, predicted from tables of their kernels, beside those of the libraries.

For every network the table is measured as ``qcompiler profile`` does, and libraries with several choices of bits are built as
``qcompiler build`` does. The overhead is fitted on the *other* networks. One sample, one thread, integers in and out; libraries
and kernels take turns, and a library's time is that of its thread, so that other programs on the machine do not count: samples go
through ``run_int`` many at a time, because entering C from Python would count otherwise. Run from the repository's root:

    python -m examples.benchmarks.latency_prediction
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

import qcompiler as qc
from qcompiler.backend.tile_table import shipped_tiles
from qcompiler.cost.candidates import candidates
from qcompiler.cost.machine import cpu_name
from qcompiler.cost.measure import RunningTraces
from qcompiler.cost.predict import Observation, Overhead, fit
from qcompiler.cost.trace import kernel_keys
from qcompiler.dump import read_dump
from qcompiler.importers.load import load_model
from qcompiler.ir.graph import WEIGHTED, Graph
from qcompiler.pipeline import Settings, to_calibrated
from qcompiler.targets.target import Target, load_target
from tests.real_models import calibration_images, load_real_model

NETWORKS = ("resnet8", "resnet20", "dscnn", "efficientnet-lite0")
CALIBRATION_SAMPLES = 16  # latency does not depend on ranges
BLOCK_SECONDS = 0.01  # a library's turn
UNIFORM = ("w8a8", "w4a8", "w2a4")


@dataclass(frozen=True)
class Case:
    """A network at some choice of bits: what was measured, in ns, and what its table says of its kernels."""

    network: str
    bits: str
    calls: int
    kernels_ns: float
    measured_ns: float

    @property
    def observation(self) -> Observation:
        return Observation(self.kernels_ns, self.calls, self.measured_ns)

    def predicted_ns(self, overhead: Overhead) -> float:
        return overhead.ns(self.kernels_ns, self.calls)


@dataclass
class Running:
    """A library that is measured: ``ns`` of a sample, for every turn."""

    library: qc.Library
    keys: tuple[str, ...]
    codes: list[np.ndarray[Any, Any]]
    ns: list[float]

    def turn(self) -> None:
        self.library.run_int(*(x[:1] for x in self.codes))
        start = time.thread_time_ns()
        self.library.run_int(*self.codes)
        self.ns.append((time.thread_time_ns() - start) / len(self.codes[0]))


def calibrated_graph(name: str, data: Path) -> Graph:
    """The network with ranges."""
    images = calibration_images(name, data, CALIBRATION_SAMPLES).floats()
    model = load_real_model(name, data).model
    example = (torch.from_numpy(images[:1]),) if isinstance(model, torch.nn.Module) else None
    return to_calibrated(load_model(model, example).graph, Settings(images))


def choices(graph: Graph) -> Mapping[str, Any]:
    """Bits to build with: all layers alike, and a random mixture."""
    draw = random.Random(0)
    layers = [node.origin or node.output.name for node in graph.nodes if node.op in WEIGHTED]
    mixture = {layer: f"w{draw.choice((8, 4, 2))}a{draw.choice((8, 4))}" for layer in layers}
    return {**{pair: pair for pair in UNIFORM}, "mixed": mixture}


def start(graph: Graph, bits: Any, target: Target) -> Running:
    """The library for one choice of bits."""
    with tempfile.TemporaryDirectory() as folder:
        library = qc.compile(graph, bits=bits, target=target.name, name="net", dump_ir=folder, progress=False)
        keys = kernel_keys(read_dump(max(Path(folder).glob("*.qir"))), target.name, tiles=shipped_tiles(target))
    return in_turns(library, keys)


def in_turns(library: qc.Library, keys: tuple[str, ...] = ()) -> Running:
    """A library with as many random samples as take ``BLOCK_SECONDS``."""
    draw = np.random.default_rng(0)

    def codes(samples: int) -> list[np.ndarray[Any, Any]]:
        return [draw.integers(0, 1 << p.bits, (samples, *p.shape)).astype(p.dtype) for p in library.inputs]

    one = codes(1)
    library.run_int(*one)
    begin = time.thread_time_ns()
    library.run_int(*one)
    return Running(library, keys, codes(max(2, round(BLOCK_SECONDS * 1e9 / (time.thread_time_ns() - begin)))), [])


def measure(name: str, data: Path, target: Target, seconds: float) -> list[Case]:
    """The cases of one network."""
    graph = calibrated_graph(name, data)
    found = candidates(graph, target).tiled(shipped_tiles(target))
    traces = RunningTraces(found.distinct, target)
    libraries = {bits: start(graph, wish, target) for bits, wish in choices(graph).items()}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        traces.round()
        for running in libraries.values():
            running.turn()
    table = traces.table()
    return [
        Case(name, bits, len(running.keys), table.ns(running.keys), float(np.median(running.ns)))
        for bits, running in libraries.items()
    ]


def left_out(cases: Sequence[Case]) -> dict[str, Overhead]:
    """For each network the overhead of the others."""
    names = dict.fromkeys(case.network for case in cases)
    return {name: fit([case.observation for case in cases if case.network != name]) for name in names}


def report(cases: Sequence[Case]) -> Table:
    """The cases with their predictions."""
    rows = Table(title="one sample, one thread, microseconds", title_justify="left")
    for heading in ("network", "bits", "calls", "sum of kernels", "predicted", "measured", "deviation"):
        rows.add_column(heading, justify="left" if heading in ("network", "bits") else "right")
    overheads = left_out(cases)
    for case in cases:
        predicted = case.predicted_ns(overheads[case.network])
        numbers = (f"{ns / 1e3:,.1f}" for ns in (case.kernels_ns, predicted, case.measured_ns))
        rows.add_row(case.network, case.bits, str(case.calls), *numbers, f"{predicted / case.measured_ns - 1:+.1%}")
    return rows


def main(
    data: Annotated[Path, typer.Option(envvar="QC_DATA", help="The folder of models and data.")],
    network: Annotated[list[str] | None, typer.Option(help="One of the networks; may be repeated, at least two.")] = None,
    target: Annotated[str, typer.Option(help="What to compile for.")] = "native",
    seconds: Annotated[float, typer.Option(help="How long to measure each network.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict the latency of networks from their kernels', each with the overhead of the others."""
    torch.set_num_threads(1)
    chosen = load_target(target)
    cases = [case for name in network or NETWORKS for case in measure(name, data, chosen, seconds)]
    overheads = left_out(cases)
    worst = max(abs(case.predicted_ns(overheads[case.network]) / case.measured_ns - 1) for case in cases)
    if as_json:
        print(json.dumps({"cpu": cpu_name(), "cases": [asdict(case) for case in cases], "worst": worst}, indent=1))
        return
    console = Console(width=110)
    console.print(report(cases))
    overhead = fit([case.observation for case in cases])
    console.print(f"largest deviation {worst:.1%}, each network with the overhead of the others", highlight=False)
    console.print(
        f"overhead of all: {overhead.factor:.3f} times the sum + {overhead.per_call_ns:.0f} ns for each call; {cpu_name()}",
        highlight=False,
    )


if __name__ == "__main__":
    typer.run(main)
