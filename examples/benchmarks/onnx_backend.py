"""What becomes of ONNX's own backend tests: passed, unsupported and why, failed; by operator on request.

python -m examples.benchmarks.onnx_backend [--operators] [--json]
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.importers.onnx_backend import KINDS, REASONS, Outcome, cases, run


def reasons(outcomes: list[Outcome]) -> Table:
    """Counts by status and reason, a column for each kind of case."""
    counts = Counter((o.status, o.reason if o.status == "unsupported" else "", o.case.kind) for o in outcomes)
    table = Table(*("", *KINDS, "all"))
    rows = [("passed", ""), *(("unsupported", reason) for reason in REASONS), ("failed", "")]
    for status, reason in rows:
        numbers = [counts[status, reason, kind] for kind in KINDS]
        label = f"{status}: {REASONS[reason]}" if reason else status
        table.add_row(label, *map(str, numbers), str(sum(numbers)))
    return table


def by_operator(outcomes: list[Outcome]) -> Table:
    """Counts by operator, for those with a passed case."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for o in outcomes:
        for operator in o.case.operators:
            found[operator][o.status] += 1
    table = Table("operator", "passed", "unsupported", "failed")
    for operator, count in sorted(found.items()):
        if count["passed"] or count["failed"]:
            table.add_row(operator, *(str(count[status]) for status in ("passed", "unsupported", "failed")))
    return table


def main(
    operators: Annotated[bool, typer.Option(help="A row for each operator too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object for each case.")] = False,
) -> None:
    """Run all cases; exit code 1 if one fails."""
    console = Console()
    if not console.is_terminal:
        console.width = 130
    every = list(cases())
    outcomes = [run(case) for case in track(every, "cases", console=Console(stderr=True), disable=not console.is_terminal)]
    if as_json:
        rows = [
            {"name": o.case.name, "kind": o.case.kind, "status": o.status, "reason": o.reason, "detail": o.detail}
            for o in outcomes
        ]
        print(json.dumps(rows, indent=1))
    else:
        console.print(reasons(outcomes))
        if operators:
            console.print(by_operator(outcomes))
    if any(o.status == "failed" for o in outcomes):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
