"""``qcompiler profile``: what every layer takes at every choice of bits, measured here or by a program for a device.

Errors: CLI007 --out together with --emit.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcompiler.cli.app import as_data, emit, errors_as_exit_codes
from qcompiler.cli.inputs import load_model
from qcompiler.cli.options import AsJson, CalibrationOptions, Model, TargetName, Tune
from qcompiler.errors import CompileError

if TYPE_CHECKING:
    from qcompiler.cost.candidates import Candidates
    from qcompiler.cost.latency_table import LatencyTable
    from qcompiler.progress import Progress


def profile(
    model: Model,
    options: CalibrationOptions,
    target: TargetName = "native",
    out: Annotated[Path | None, typer.Option(help="JSON file for the latency table that is measured here")] = None,
    program: Annotated[
        Path | None, typer.Option("--emit", help="folder for a C program that measures on the device and prints the table")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="how long to measure")] = 2.0,
    cache: Annotated[
        Path | None, typer.Option(help="folder of earlier measurements; default: $QC_CACHE or ~/.cache/qcompiler")
    ] = None,
    tune: Tune = "off",
    as_json: AsJson = False,
) -> None:
    """Measure the kernels of MODEL at every pair of bits that the target offers: here, or with a C program on a device.

    `qcompiler profile net.onnx --calibration inputs.npy --out latency.json`

    `qcompiler profile net.onnx --calibration inputs.npy --target arm64 --emit program/`
    """
    with errors_as_exit_codes(as_json):
        if out is not None and program is not None:
            remedy = "leave one away; the program prints the table when it runs"
            raise CompileError("CLI007", "--out", "with --emit nothing is measured here", remedy)
        from qcompiler.cost.device_program import write_device_program
        from qcompiler.cost.table_cache import measured_table
        from qcompiler.progress import progress_bars

        with progress_bars(not as_json) as progress:
            name, found = find_candidates(model, options, target, tune, cache, progress)
            if program is not None:
                files = write_device_program(found, program, name, progress)
                data = {"files": files, "kernels": list(found.keys)}
                emit(as_json, lambda: data, lambda: f"written to {program}/: {', '.join(files)}\nnext: see README.txt there")
                return
            table = measured_table(found, cache, seconds, progress)
        if out is not None:
            table.write(out)
        emit(as_json, lambda: as_data(table.to_json()), lambda: describe(found, table))


def find_candidates(
    model: str, options: CalibrationOptions, target: str, tune: str, cache: Path | None, progress: Progress
) -> tuple[str, Candidates]:
    """The model's name, and its candidates when it has ranges, tiled as they ship with ``tune``."""
    from qcompiler.api import import_model, read_options
    from qcompiler.cost.candidates import candidates
    from qcompiler.cost.tile_cache import tiles_for
    from qcompiler.pipeline import Settings, to_calibrated
    from qcompiler.targets.target import load_target

    chosen = load_target(target)
    settings = read_options({**options.keywords(), "tune": tune})
    _, graph, calibration = import_model(load_model(model), None, settings)
    passing = Settings(calibration, settings.observer, progress=progress)
    found = candidates(to_calibrated(graph, passing), chosen, settings.output_bits)
    return graph.name, found.tiled(tiles_for(found.distinct, chosen, tune, cache, progress))


def describe(found: Candidates, table: LatencyTable) -> str:
    """The table for people: layers by pairs of bits, in microseconds."""
    import io

    from rich.console import Console
    from rich.table import Table

    rows = Table(title=f"{table.target}, {table.cpu}: microseconds", title_justify="left")
    rows.add_column("weights", overflow="fold")
    for pair in found.traces:
        rows.add_column(pair, justify="right")

    def add(name: str, numbers: list[float], **style: Any) -> None:
        rows.add_row(name, *(f"{ns / 1e3:,.1f}" for ns in numbers), **style)

    for index, (_, weights) in enumerate(found.layers):
        add(weights, [table.ns([keys[index]]) for keys in found.layer_keys.values()])
    others = [table.ns(call.key for call in trace.calls if not call.sums) for trace in found.traces.values()]
    if found.layers:
        add("all without weights", others, end_section=True)
    add("together", [table.ns(trace.keys) for trace in found.traces.values()])
    text = io.StringIO()
    Console(file=text, width=110).print(rows)
    return text.getvalue()
