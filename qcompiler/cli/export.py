"""``qcompiler export``: the quantized network as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qcompiler.cli.app import emit, errors_as_exit_codes
from qcompiler.cli.inputs import load_model
from qcompiler.cli.options import AsJson, Model, QuantizationOptions


def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="the ONNX file to write")],
    options: QuantizationOptions,
    as_float: Annotated[bool, typer.Option("--float", help="write the float graph; nothing is quantized")] = False,
    as_json: AsJson = False,
) -> None:
    """Write MODEL, quantized, as ONNX in QDQ form, for Netron and other runtimes; or as float ONNX, of any stage of a dump.

    `qcompiler export net.onnx --calibration inputs.npy --bits w4a8 --out net.qdq.onnx`
    """
    import qcompiler

    with errors_as_exit_codes(as_json):
        qcompiler.export_onnx(load_model(model), out, as_float=as_float, **options.keywords(), progress=not as_json)
        emit(as_json, lambda: {"file": str(out), "bytes": out.stat().st_size}, lambda: f"written: {out}")
