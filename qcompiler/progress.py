"""Progress of long work: a bar on a terminal, nothing in pipes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Where long work reports to."""

    def advance(self, step: str, amount: float = 1, total: float | None = None) -> None:
        """``amount`` more of ``step`` is done, of ``total`` where that is known."""


class Silent:
    """Reports nothing."""

    def advance(self, step: str, amount: float = 1, total: float | None = None) -> None:
        return None


@contextmanager
def progress_bars(enabled: bool = True) -> Iterator[Progress]:
    """Bars on standard error while the context is open, if it is a terminal and ``enabled``; otherwise silent."""
    from rich.console import Console

    console = Console(stderr=True)
    if not (enabled and console.is_terminal):
        yield Silent()
        return
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description:<12}"), BarColumn(), TextColumn("{task.completed:>5.0f}"), TimeElapsedColumn())
    with RichProgress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        class Bars:
            def advance(self, step: str, amount: float = 1, total: float | None = None) -> None:
                if step not in tasks:
                    for task in bars.tasks:  # whose number of steps nobody knew: full when the next begins
                        if task.total is None:
                            bars.update(task.id, total=task.completed)
                    tasks[step] = bars.add_task(step, total=total)
                bars.update(tasks[step], advance=amount, total=total)

        yield Bars()
