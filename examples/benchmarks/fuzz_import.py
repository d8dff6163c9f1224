"""Damaged ONNX files and odd torch modules: each must give a right result or a clear error, within 20 s and 4 GiB.

No crash, no hang, no memory blow-up, no traceback. Run from the repository's root:

    python -m examples.benchmarks.fuzz_import --count 2000

Exit code 1 where a case gives anything else; ``--only INDEX`` repeats one and prints all that it says.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.wall.damage import FINE, Outcome, check_case
from tests.wall.isolated import run_cases


@contextmanager
def counted(total: int) -> Iterator[Any]:
    """A function to call after each case: a bar on a terminal, nothing in pipes."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda failures: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("cases", total=total)
        yield lambda failures: bars.update(task, advance=1, description=f"cases, {failures} failed")


def summary(outcomes: list[Outcome], seconds: float) -> dict[str, Any]:
    """The counts, and every failure in full."""
    kinds = Counter(outcome.kind for outcome in outcomes)
    return {
        "cases": len(outcomes),
        "seconds": round(seconds, 1),
        "kinds": dict(sorted(kinds.items())),
        "checked": dict(sorted(Counter(o.detail for o in outcomes if o.kind == "right").items())),
        "codes": dict(sorted(Counter(o.detail for o in outcomes if o.kind == "error").items())),
        "slowest_seconds": round(max((o.seconds for o in outcomes), default=0.0), 1),
        "failures": [asdict(o) for o in sorted(outcomes, key=lambda o: o.index) if o.kind not in FINE],
    }


def print_summary(facts: dict[str, Any], seed: int) -> None:
    """The counts and failures for people."""
    table = Table(title=f"{facts['cases']} cases of seed {seed} in {facts['seconds']} s", title_justify="left")
    for heading in ("outcome", "cases", "of which"):
        table.add_column(heading, justify="right" if heading == "cases" else "left")
    parts = {"right": facts["checked"], "error": facts["codes"]}
    for kind, count in facts["kinds"].items():
        table.add_row(kind, str(count), ", ".join(f"{name}: {n}" for name, n in parts.get(kind, {}).items()))
    console = Console(width=110)
    console.print(table)
    for failure in facts["failures"]:
        console.print(f"\n{failure['index']} ({failure['what']}): {failure['kind']}", style="bold", highlight=False)
        console.print(failure["detail"], highlight=False, markup=False)


def main(
    count: Annotated[int, typer.Option(help="How many cases.")] = 2000,
    seed: Annotated[int, typer.Option(help="Which cases.")] = 0,
    start: Annotated[int, typer.Option(help="The first case's index.")] = 0,
    only: Annotated[int | None, typer.Option(help="Run this one case in this process and print all that it says.")] = None,
    build_every: Annotated[int, typer.Option(help="One case in so many builds a library too; 0: none.")] = 10,
    workers: Annotated[int, typer.Option(help="Processes at once.")] = os.cpu_count() or 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Damage models and count what becomes of them."""
    if only is not None:
        with tempfile.TemporaryDirectory() as folder:
            outcome = check_case(seed, only, bool(build_every) and only % build_every == 0, Path(folder), print)
        print(f"{outcome.what}: {outcome.kind}\n{outcome.detail}")
        raise typer.Exit(outcome.kind not in FINE)
    begin = time.monotonic()
    outcomes: list[Outcome] = []
    with counted(count) as advance:
        for outcome in run_cases(seed, range(start, start + count), build_every, workers):
            outcomes.append(outcome)
            advance(sum(o.kind not in FINE for o in outcomes))
    facts = summary(outcomes, time.monotonic() - begin)
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        print_summary(facts, seed)
    raise typer.Exit(bool(facts["failures"]))


if __name__ == "__main__":
    typer.run(main)
