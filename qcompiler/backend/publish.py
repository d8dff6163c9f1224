"""Puts the files of an artifact into their folder, all at once.

What is there when a build is killed at any moment:
- a folder that was not there: nothing, or all files;
- a folder of an earlier artifact, with other files or without: all of the old ones, or all of the new ones; the two folders are
  exchanged in one step (``renameat2``). Where the system cannot do that: perhaps no folder, never a part of one;
- a folder that cannot be exchanged, because it has folders in it or is the current one: the old, the new, or files without
  ``net.json``, which goes first and comes last: nothing takes them for an artifact.
Ctrl-C waits until the files are in place. Only SIGKILL leaves a temporary folder, ``.<name>.<hex>``, beside.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from qcompiler.errors import CompileError
from qcompiler.interrupts import interrupts_wait

MARK: Final = "net.json"
"""The file without which a folder is no artifact."""
HIDDEN: Final = ".net.json"
"""Its name until everything else is there."""

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


def publish(out: Path, contents: Mapping[str, bytes], known: tuple[str, ...]) -> None:
    """Writes files by their names into the folder ``out``; those of ``known`` that are not among them go, others stay.

    Raises CompileError BUILD003 where the folder cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise CompileError("BUILD003", f"out={str(out)!r}", "this is a file, not a folder", "name a folder")
    place = Path(os.path.realpath(out))
    staging = place.parent / f".{place.name}.{uuid.uuid4().hex}"
    with interrupts_wait():
        try:
            staging.mkdir(parents=True)
            for name, content in contents.items():
                (staging / (HIDDEN if name == MARK else name)).write_bytes(content)
            _move(staging, place, {*contents, *known})
        except OSError as error:
            problem = f"the artifact cannot be written: {error.strerror or error}"
            raise CompileError(
                "BUILD003", f"out={str(out)!r}", problem, "name a folder that can be written, on a disk with room"
            ) from error
        finally:
            with suppress(OSError):
                (staging / MARK).unlink()  # no part of an old artifact is taken for one
            shutil.rmtree(staging, ignore_errors=True)


def _move(staging: Path, place: Path, ours: set[str]) -> None:
    """The staged files to ``place``; what is at ``staging`` afterwards may go."""
    fresh = not place.exists()
    if fresh or _completed(staging, place, ours):
        os.rename(staging / HIDDEN, staging / MARK)
        if fresh:
            os.rename(staging, place)
        else:
            _exchange(staging, place)
        return
    for name in (MARK, *sorted(ours - {MARK})):
        (place / name).unlink(missing_ok=True)
    for name in sorted(ours & set(os.listdir(staging))):
        os.replace(staging / name, place / name)
    os.replace(staging / HIDDEN, place / MARK)


def _completed(staging: Path, place: Path, ours: set[str]) -> bool:
    """Links what else is in the old folder into the new one; False where the old one cannot be exchanged."""
    if os.path.ismount(place) or Path.cwd().is_relative_to(place):
        return False
    with os.scandir(place) as entries:
        others = [entry for entry in entries if entry.name not in ours]
    if any(entry.is_dir(follow_symlinks=False) for entry in others):
        return False
    try:
        for entry in others:
            os.link(entry.path, staging / entry.name, follow_symlinks=False)
        shutil.copymode(place, staging)
    except OSError:  # a file system without links, or files of somebody else
        return False
    return True


def _exchange(staging: Path, place: Path) -> None:
    rename: Any = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    paths = os.fsencode(staging), os.fsencode(place)
    if rename is None or rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], ctypes.c_uint(_RENAME_EXCHANGE)) != 0:
        old = staging.with_name(f"{staging.name}.old")
        os.rename(place, old)
        try:
            os.rename(staging, place)
        except OSError:
            os.rename(old, place)
            raise
        os.rename(old, staging)
