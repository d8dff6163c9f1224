"""``qcompiler build``: a C library for a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qcompiler.cli.app import as_data, emit, errors_as_exit_codes
from qcompiler.cli.inputs import load_model
from qcompiler.cli.options import AsJson, BuildOptions, Model


def build(
    model: Model,
    out: Annotated[Path, typer.Option(help="folder for net.o, libnet.a, libnet.so, net.h, net.json and net.report.json")],
    options: BuildOptions,
    as_json: AsJson = False,
) -> None:
    """Compile MODEL ahead of time into a C library for a device.

    `qcompiler build net.onnx --calibration inputs.npy --target arm64-dotprod --pin 'layer3.*=w4a8' --out build/`
    """
    import qcompiler

    with errors_as_exit_codes(as_json):
        artifact = qcompiler.build(load_model(model), out=out, **options.keywords(), progress=not as_json)

        def text() -> str:
            return f"{artifact.report()}written to {out}/: {', '.join(artifact.files())}"

        emit(as_json, lambda: {**as_data(artifact.report().to_json()), "files": artifact.files()}, text)
