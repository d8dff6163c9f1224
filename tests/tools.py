"""What a test needs besides Python and ``cc``: it is skipped, with the reason, where that is missing."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from qcompiler.targets.target import host_architecture, load_target

CROSS, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"


def need(*tools: str) -> None:
    """Skip the test where a command is missing."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def need_compiler(target: str) -> None:
    """Skip the test where nothing compiles C for the target; the host's own compiler has to be there."""
    chosen = load_target(target)
    if chosen.architecture == host_architecture():
        return
    compilers = (f"{chosen.c_compiler.prefix}gcc", "clang")
    if not any(map(shutil.which, compilers)) and importlib.util.find_spec("ziglang") is None:
        pytest.skip(f"not installed: one of {', '.join(compilers)}, zig")
