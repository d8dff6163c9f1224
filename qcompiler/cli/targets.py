"""``qcompiler targets``: what can be built for."""

from __future__ import annotations

from typing import Any

from qcompiler.cli.app import emit, errors_as_exit_codes
from qcompiler.cli.options import AsJson


def targets(as_json: AsJson = False) -> None:
    """List the targets, and which of them this machine runs.

    `qcompiler targets --json`
    """
    from qcompiler.targets.target import ALIASES, NATIVE_ORDER, available_targets, host_runs, load_target

    with errors_as_exit_codes(as_json):
        known = [load_target(name) for name in available_targets()]
        native = next((name for name in NATIVE_ORDER if host_runs(load_target(name))), None)
        rows = [
            {
                "name": t.name,
                "description": t.description,
                "bits": list(t.bit_pairs),
                "runs_here": host_runs(t),
                "native": t.name == native,
                "short": [short for short, name in ALIASES.items() if name == t.name],
            }
            for t in known
        ]

        def text() -> str:
            return target_table(rows)

        emit(as_json, lambda: rows, text)


def target_table(rows: list[dict[str, Any]]) -> str:
    """The targets for people."""
    import io

    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("target", "runs here", "bits", "description"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        here = "native" if row["native"] else ("yes" if row["runs_here"] else "no")
        name = " = ".join((row["name"], *row["short"]))
        table.add_row(name, here, " ".join(row["bits"]), row["description"])
    text = io.StringIO()
    Console(file=text, width=110).print(table)
    return text.getvalue()
