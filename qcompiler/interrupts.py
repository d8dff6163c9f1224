"""What Ctrl-C may not cut in two: signals that Python turns into exceptions wait until it is done."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone afterwards, whenever Ctrl-C comes: a signal that arrives while it is made or removed waits."""
    with ExitStack() as stack:
        with interrupts_wait():
            folder = tempfile.mkdtemp(prefix="qcompiler-")
            stack.callback(_remove, folder)
        yield Path(folder)


def _remove(folder: str) -> None:
    with interrupts_wait():
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Signals that Python turns into exceptions (Ctrl-C) have their effect when the context ends."""
    waiting: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # the only one that signals interrupt
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        for number in handlers:
            signal.signal(number, lambda number, frame: waiting.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])
