"""What becomes of ONNX's own backend tests: passed, unsupported and why, failed; by operator on request.

python -m examples.benchmarks.onnx_backend [--operators] [--json]
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.importers.onnx_backend import KINDS, REASONS, Outcome, cases, run
from tests.wall.many import build_many, mismatches


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


def differing(outcomes: list[Outcome], console: Console) -> int:
    """How many outputs of the passed cases' libraries are not the reference's."""
    graphs = [o.integer for o in outcomes if o.integer is not None]
    wrong = 0
    for first in range(0, len(graphs), 50):
        part = graphs[first : first + 50]
        with tempfile.TemporaryDirectory() as folder:
            wrong += len(mismatches(part, build_many(part, "native", Path(folder) / "library")))
    console.print(f"{len(graphs)} built; {wrong} outputs differ from the reference", highlight=False)
    return wrong


def main(
    operators: Annotated[bool, typer.Option(help="A row for each operator too.")] = False,
    build: Annotated[bool, typer.Option(help="Build what passes, 50 to a library, and compare it with the reference.")] = False,
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
    wrong = differing(outcomes, console) if build else 0
    if wrong or any(o.status == "failed" for o in outcomes):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
