"""A build that is killed at any line of ``publish`` leaves the old files, the new ones, or no artifact; never a part of one.

Some lines, which differ from case to case, are tried always, every one under the mark ``exhaustive``.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from qcompiler.backend import publish
from qcompiler.errors import CompileError

KNOWN = ("libnet.a", "net.h", "net.json", "net.report.json")
OLD = {"libnet.a": b"old", "net.h": b"old", "net.json": b"old", "net.report.json": b"old"}
NEW = {"libnet.a": b"new", "net.h": b"new", "net.json": b"new"}
FINISHED, INTERRUPTED = 7, 8


def interrupted_child(out: Path, number: int, line: int) -> int:
    """Publish ``NEW`` in a child that gets a signal before the given line of the module; its exit code, or less the signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal seen
        if frame.f_code.co_filename != publish.__file__:
            return None
        if event == "line":
            seen += 1
            if seen == line:
                signal.raise_signal(number)
        return trace

    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.settrace(trace)
        publish.publish(out, NEW, KNOWN)
        code = FINISHED
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        sys.settrace(None)
        os._exit(code)


def content(folder: Path) -> Mapping[str, bytes] | None:
    """The artifact's files in a folder; None where it is no artifact."""
    if not (folder / "net.json").exists():
        return None
    return {name: (folder / name).read_bytes() for name in KNOWN if (folder / name).exists()}


BEFORE = ("nothing", "empty", "artifact", "artifact and files", "artifact and folders", "no exchange")
SIGNALS = (signal.SIGKILL, signal.SIGINT)
STEP = 7


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("before", BEFORE)
def test_killed_at_some_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, number: int) -> None:
    first = 2 + (BEFORE.index(before) + 3 * SIGNALS.index(number)) % STEP
    check_killed(tmp_path, monkeypatch, before, number, [1, *range(first, 1000, STEP)])


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("before", BEFORE)
def test_killed_at_every_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, number: int) -> None:
    check_killed(tmp_path, monkeypatch, before, number, range(1, 1000))


def check_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, number: int, lines: Sequence[int]) -> None:
    if before == "no exchange":
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    states = []
    for line in lines:
        parent = tmp_path / str(line)
        out = parent / "net"
        if before != "nothing":
            out.mkdir(parents=True)
        if before not in ("nothing", "empty"):
            for name, data in OLD.items():
                (out / name).write_bytes(data)
        if before == "artifact and files":
            (out / "mine.txt").write_text("mine")
        if before == "artifact and folders":
            (out / "mine").mkdir()
        code = interrupted_child(out, number, line)
        state = content(out)
        states.append(state)
        assert state in (None, OLD, NEW), line
        if before in ("artifact", "artifact and files"):
            assert state is not None, line
        if before == "artifact and files":
            assert (out / "mine.txt").read_text() == "mine"
        left = [path for path in parent.iterdir() if path != out] if parent.exists() else []
        assert all(path.name.startswith(".") and content(path) in (None, OLD, NEW) for path in left)
        if code == FINISHED:
            assert state == NEW
            break
        if number == signal.SIGINT:
            assert code == INTERRUPTED, line
            assert left == [], line
            if before not in ("nothing", "empty"):
                assert state is not None, line
        else:
            assert code == -signal.SIGKILL
    assert line > 20
    assert states[0] == (None if before in ("nothing", "empty") else OLD)


def test_other_files_and_the_folders_mode_stay(tmp_path: Path) -> None:
    out = tmp_path / "net"
    publish.publish(out, OLD, KNOWN)
    (out / "mine.txt").write_text("mine")
    (out / "link").symlink_to("mine.txt")
    out.chmod(0o750)
    publish.publish(out, NEW, KNOWN)
    assert content(out) == NEW
    assert (out / "link").is_symlink()
    assert (out / "link").read_text() == "mine"
    assert out.stat().st_mode & 0o777 == 0o750
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_through_a_link_and_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "net").symlink_to("real")
    publish.publish(tmp_path / "net", OLD, KNOWN)
    assert (tmp_path / "net").is_symlink()
    assert content(tmp_path / "real") == OLD
    monkeypatch.chdir(tmp_path / "real")
    publish.publish(Path(), NEW, KNOWN)
    assert content(Path()) == NEW
    assert content(tmp_path / "real") == NEW


def test_a_system_that_cannot_exchange_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    publish.publish(tmp_path / "net", OLD, KNOWN)
    publish.publish(tmp_path / "net", NEW, KNOWN)
    assert content(tmp_path / "net") == NEW
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_outside_of_the_main_thread(tmp_path: Path) -> None:
    thread = threading.Thread(target=publish.publish, args=(tmp_path / "net", NEW, KNOWN))
    thread.start()
    thread.join()
    assert content(tmp_path / "net") == NEW


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(CompileError) as caught:
        publish.publish(tmp_path / "net", NEW, KNOWN)
    assert str(caught.value) == (
        f"BUILD003 at out={str(tmp_path / 'net')!r}\n"
        "  problem: the artifact cannot be written: Permission denied\n"
        "  remedy:  name a folder that can be written, on a disk with room"
    )
    assert list(tmp_path.iterdir()) == []
