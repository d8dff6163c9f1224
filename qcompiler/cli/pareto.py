"""``qcompiler pareto``: the best bits at every size, as a table, CSV and picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcompiler.cli.app import emit, errors_as_exit_codes
from qcompiler.cli.inputs import load_model
from qcompiler.cli.options import AsJson, Model, SweepOptions

if TYPE_CHECKING:
    from qcompiler.search.pareto import Curve


def pareto(
    model: Model,
    options: SweepOptions,
    by: Annotated[str, typer.Option(help="what is swept: size, latency or bops")] = "size",
    points: Annotated[int, typer.Option(help="at most so many points")] = 8,
    csv: Annotated[Path | None, typer.Option(help="a file for the points as CSV")] = None,
    plot: Annotated[Path | None, typer.Option(help="a file for a picture, .png or .svg (needs matplotlib)")] = None,
    as_json: AsJson = False,
) -> None:
    """The best bits of MODEL at every size: each point is quantized, built for this machine, and run on the calibration samples.

    `qcompiler pareto net.onnx --calibration inputs.npy --points 8 --csv curve.csv --plot curve.png`
    """
    import qcompiler

    with errors_as_exit_codes(as_json):
        curve = qcompiler.pareto(load_model(model), by=by, points=points, **options.keywords(), progress=not as_json)
        if csv is not None:
            csv.write_text(curve.to_csv(), encoding="utf-8")
        if plot is not None:
            curve.plot(plot)
        emit(as_json, curve.to_dict, lambda: table(curve))


def table(curve: Curve) -> str:
    """The points for people."""
    from rich.console import Console
    from rich.table import Table

    latency = any(point.latency_ms is not None for point in curve.points)
    result = Table(title=curve.name, title_justify="left")
    for heading in ("choice", "weight bytes", "bit operations", *(["latency ms"] if latency else []), "same class %", "SQNR dB"):
        result.add_column(heading, justify="left" if heading == "choice" else "right")
    for label, point in [*(("chosen", p) for p in curve.points), *curve.uniform.items()]:
        milliseconds = ["-" if point.latency_ms is None else f"{point.latency_ms:.3f}"] if latency else []
        agreement = "-" if point.agreement is None else f"{point.agreement:.2f}"
        result.add_row(label, f"{point.weight_bytes:,}", f"{point.bops:,}", *milliseconds, agreement, f"{point.sqnr_db:.1f}")
    text = io.StringIO()
    Console(file=text, width=110).print(result)
    return text.getvalue()
