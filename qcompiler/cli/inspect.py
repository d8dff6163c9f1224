"""``qcompiler inspect``: what an artifact, a dump or a model consists of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qcompiler.cli.app import as_data, emit, errors_as_exit_codes
from qcompiler.cli.inputs import load_model
from qcompiler.cli.options import AsJson


def inspect(
    path: Annotated[Path, typer.Argument(help="an artifact folder, a dump (.qir), or a model (.onnx, .pt2)")],
    as_json: AsJson = False,
) -> None:
    """Show what an artifact, a dump or a model consists of.

    An artifact gives its report; a dump is checked and printed; a model is imported and printed as the float graph.

    `qcompiler inspect build/` or `qcompiler inspect dumps/16-quantize.qir`
    """
    from qcompiler.ir.text import MemoryStore, print_graph
    from qcompiler.ir.verify import verify
    from qcompiler.loading import load_graph
    from qcompiler.ops.table import OPERATORS
    from qcompiler.report import read_report

    with errors_as_exit_codes(as_json):
        if path.is_dir():
            report = read_report(path)
            emit(as_json, lambda: as_data(report.to_json()), lambda: str(report))
            return
        imported = load_graph(load_model(str(path)), None)
        graph, notes = imported.graph, list(imported.notes)
        verify(graph, OPERATORS)

        def data() -> Any:
            nodes = [
                {"op": n.op, "inputs": list(n.inputs), "output": n.output.name, "type": str(n.output.type), "layer": n.origin}
                for n in graph.nodes
            ]
            return {"name": graph.name, "stage": graph.stage.value, "nodes": nodes, "notes": notes}

        emit(as_json, data, lambda: "\n".join([print_graph(graph, MemoryStore()).rstrip(), *notes]))
