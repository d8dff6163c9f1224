"""What tuning of tiles gains: each network with the model's tilings, with those that ship, and tuned here, in turns.

Every network is tuned with an empty cache. With ``--emit`` the tilings that were clearly faster are added to a file, in the form
in which they ship with a target. Pinned to one core, from the repository's root, with QC_DATA naming the folder of models:

    taskset -c 0 python -m examples.benchmarks.tiles
    taskset -c 0 python -m examples.benchmarks.tiles --model resnet50 --emit targets/x86-avx512vnni.tiles.json
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import qcompiler as qc
from examples.benchmarks.cases import MODELS
from examples.benchmarks.kernels import integer_graph
from examples.benchmarks.latency_prediction import in_turns
from examples.benchmarks.machine import environment
from qcompiler.backend.artifact import write_artifact
from qcompiler.backend.library import Library
from qcompiler.backend.lower import lower
from qcompiler.backend.tile_table import TileTable, shipped_tiles
from qcompiler.cost.tile_cache import read_tiles, tiles_for, write_tiles
from qcompiler.cost.trace import trace
from qcompiler.ir.graph import Graph
from qcompiler.targets.target import Target, load_target


@dataclass(frozen=True)
class Row:
    """A network: how many of its kernels were tuned, how long that took, and times over that of the model's tilings."""

    name: str
    kernels: int
    tuned: int
    seconds: float
    model_ms: float
    shipped: float
    here: float


def library(graph: Graph, target: Target, tiles: TileTable) -> qc.Library:
    """The library with these tilings."""
    program = lower(graph, target.instruction_set, target.tvm_target, tiles=tiles)
    with tempfile.TemporaryDirectory() as folder:
        write_artifact(program, target, Path(folder) / "net")
        return Library(Path(folder) / "net")


def measure(name: str, graph: Graph, target: Target, seconds: float) -> tuple[Row, TileTable]:
    """The row of a network, and what tuning found."""
    traced = trace(graph, target.name, name)
    with tempfile.TemporaryDirectory() as cache:
        begin = time.perf_counter()
        tiles = tiles_for([traced], target, "full", Path(cache))
        spent = time.perf_counter() - begin
    kernels = set(traced.keys)
    found = {key: tuned for key, tuned in tiles.kernels.items() if key in kernels and tuned.tiling}
    choices = [TileTable(target), shipped_tiles(target), tiles]
    running = [in_turns(library(graph, target, table)) for table in choices]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for one in running:
            one.turn()
    ns = np.array([one.ns for one in running])
    ratios = np.median(ns / ns[0], axis=1)
    row = Row(name, len(kernels), len(found), spent, float(np.median(ns[0])) / 1e6, float(ratios[1]), float(ratios[2]))
    return row, TileTable(target, found)


def report(rows: list[Row]) -> Table:
    """The rows for people."""
    table = Table(title="one sample, one thread", title_justify="left")
    for heading in ("network", "kernels", "tuned", "s to tune", "model, ms", "shipped : model", "tuned : model"):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for row in rows:
        ratios = (f"{row.shipped:.3f}", f"{row.here:.3f}")
        table.add_row(row.name, str(row.kernels), str(row.tuned), f"{row.seconds:.0f}", f"{row.model_ms:.3f}", *ratios)
    return table


def main(
    data: Annotated[Path, typer.Option(envvar="QC_DATA", help="The folder of models and data.")],
    model: Annotated[list[str], typer.Option(help="One of the networks; may be repeated.")] = [*MODELS],  # noqa: B006
    bits: Annotated[list[str], typer.Option(help="Of all layers; may be repeated.")] = ["w8a8"],  # noqa: B006
    target: Annotated[str, typer.Option(help="What to build for.")] = "native",
    seconds: Annotated[float, typer.Option(help="To compare the libraries of a network.")] = 10.0,
    emit: Annotated[Path | None, typer.Option(help="File that gets what was clearly faster.")] = None,
) -> None:
    """Tune, compare and print."""
    chosen = load_target(target)
    console = Console(width=110)
    rows = []
    for name in model:
        for pair in bits:
            row, found = measure(f"{name} {pair}", integer_graph(name, data, pair, target), chosen, seconds)
            rows.append(row)
            console.print(report([row]))
            if emit is not None:
                write_tiles(emit, read_tiles(emit, chosen).updated(found))
    console.print(report(rows))
    facts = environment(("qcompiler", "apache-tvm"))
    console.print(f"{facts['cpu']}, load {facts['load']:.2f}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
