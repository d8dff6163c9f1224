"""Runs cases of ``damage`` in processes of their own, with limits on time and memory: what dies or hangs there is counted here."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

from tests.wall.damage import Kind, Outcome, check_case

TIME_LIMIT: Final = 20.0  # seconds of CPU time a case; of wall time four times as many, since machines are shared
BUILD_TIME: Final = 60.0
MEMORY_LIMIT: Final = 4 << 30  # bytes of address space beyond what the imports take
Check = Callable[[int, int, bool, Path, Callable[[str], None]], Outcome]


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def _load() -> None:
    """What a case needs is loaded before memory is limited."""
    import onnxruntime  # noqa: F401
    import torch
    import tvm  # noqa: F401

    from qcompiler.backend.artifact import write_artifact  # noqa: F401
    from qcompiler.backend.lower import lower  # noqa: F401
    from qcompiler.pipeline import to_integer  # noqa: F401
    from tests.wall import odd_modules  # noqa: F401

    torch.set_num_threads(1)


def _work(connection: Connection, check: Check, seed: int, memory: int, folder: str) -> None:
    """Answers indices with outcomes; says before each stage what comes next."""
    if check is check_case:
        _load()
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    limit = _address_space() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send(None)
    while True:
        index, build = connection.recv()
        begin = time.perf_counter()
        try:
            outcome = check(seed, index, build, Path(folder), connection.send)
        except MemoryError:
            outcome = Outcome(index, "?", "memory", traceback.format_exc())
        connection.send((outcome, time.perf_counter() - begin))


@dataclass
class Worker:
    """A process and the case that it works on."""

    process: Any
    connection: Connection
    index: int | None = None
    limit: float = 0.0
    begin: float = 0.0
    cpu_begin: float = 0.0
    stage: str = ""

    def cpu_seconds(self) -> float:
        """Of the process and the children that it waited for."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        except OSError:
            return self.cpu_begin
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def give(self, index: int, build: bool) -> None:
        """Start a case."""
        self.index, self.limit, self.stage = index, TIME_LIMIT + BUILD_TIME * build, "start"
        self.begin, self.cpu_begin = time.monotonic(), self.cpu_seconds()
        self.connection.send((index, build))

    def late(self) -> bool:
        """Whether the case has had its time."""
        wall = time.monotonic() - self.begin
        return wall > 4 * self.limit or (wall > self.limit and self.cpu_seconds() - self.cpu_begin > self.limit)

    def stop(self) -> int:
        """End the process; its exit code, the negative of a signal."""
        self.process.join(1)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        return int(self.process.exitcode or 0)


def _start(check: Check, seed: int, memory: int, folder: str) -> Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, check, seed, memory, tempfile.mkdtemp(dir=folder)), daemon=False)
    process.start()
    theirs.close()
    ours.recv()
    return Worker(process, ours)


def _died(worker: Worker) -> Outcome:
    """The case of a worker that is gone."""
    code = worker.stop()
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return _lost(worker, "crash", f"{name} in stage {worker.stage}")


def _lost(worker: Worker, kind: Kind, detail: str) -> Outcome:
    assert worker.index is not None
    if worker.stage == "runtime":  # ours had taken the model: theirs is not what is tested
        return Outcome(worker.index, "?", "right", f"quantized: the other runtime does not survive it ({detail})")
    return Outcome(worker.index, "?", kind, detail, time.monotonic() - worker.begin)


def run_cases(
    seed: int,
    indices: Sequence[int],
    build_every: int = 10,
    workers: int = 1,
    memory: int = MEMORY_LIMIT,
    check: Check = check_case,
) -> Iterator[Outcome]:
    """Every case's outcome, as they come; of the cases, one in ``build_every`` builds a library too (0: none)."""
    waiting = list(reversed(indices))
    running: list[Worker] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    running.append(_start(check, seed, memory, folder))
                    running[-1].give(index := waiting.pop(), _builds(index, build_every))
                wait([worker.connection for worker in running], 0.5)
                for worker in list(running):
                    outcome = _next(worker)
                    if outcome is None:
                        continue
                    yield outcome
                    if waiting and worker.process.is_alive() and outcome.kind not in ("crash", "time", "memory"):
                        worker.give(index := waiting.pop(), _builds(index, build_every))
                    else:
                        worker.process.kill()
                        worker.stop()
                        running.remove(worker)
        finally:
            for worker in running:
                worker.process.kill()
                worker.stop()


def _builds(index: int, every: int) -> bool:
    return bool(every) and index % every == 0


def _next(worker: Worker) -> Outcome | None:
    """What a worker has to say: its case's outcome, or nothing yet."""
    try:
        while worker.connection.poll():
            message = worker.connection.recv()
            if isinstance(message, str):
                worker.stage = message
                continue
            outcome, seconds = message
            return Outcome(outcome.index, outcome.what, outcome.kind, outcome.detail, seconds)
    except (EOFError, ConnectionError):
        return _died(worker)
    if worker.late():
        worker.process.kill()
        worker.stop()
        return _lost(worker, "time", f"no end after {worker.limit:.0f} s of CPU time, in stage {worker.stage}")
    return None
