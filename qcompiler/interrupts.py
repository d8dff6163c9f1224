"""What Ctrl-C may not cut in two: signals that Python turns into exceptions wait until it is done."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone afterwards, at the latest when the process ends: Ctrl-C may come between any two instructions."""
    with interrupts_wait():
        folder = tempfile.TemporaryDirectory(prefix="qcompiler-", ignore_cleanup_errors=True)
    try:
        yield Path(folder.name)
    finally:
        with interrupts_wait():
            folder.cleanup()


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
