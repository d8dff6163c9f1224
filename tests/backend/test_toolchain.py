"""Finding a compiler, and saying what to do where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcompiler.backend import toolchain as module
from qcompiler.backend.elf import Machine, read_elf
from qcompiler.backend.toolchain import Toolchain, find_toolchain
from qcompiler.errors import CompileError
from qcompiler.targets.target import host_architecture, load_target


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QC_CC", raising=False)
    monkeypatch.delenv("CC", raising=False)
    module._find.cache_clear()


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "zig_command", lambda: None)
    with pytest.raises(CompileError) as caught:
        find_toolchain(load_target("x86-baseline"))
    assert str(caught.value) == (
        "TOOL001 at target 'x86-baseline'\n"
        "  problem: there is no C compiler for x86_64\n"
        "  remedy:  pip install 'qcompiler[zig]', or name a working compiler in QC_CC"
    )


def test_named_compiler_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QC_CC", "/nowhere/cc -x")
    with pytest.raises(CompileError) as caught:
        find_toolchain(load_target("x86-baseline"))
    assert caught.value.code == "TOOL001"
    assert caught.value.problem == "QC_CC is '/nowhere/cc -x', which does not compile and link C for x86_64"


def test_compiler_for_another_machine_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    if host_architecture() != "x86_64" or module.shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("needs an x86-64 machine with aarch64-linux-gnu-gcc")
    monkeypatch.setenv("CC", "cc")
    assert find_toolchain(load_target("arm64-neon")).command == ("aarch64-linux-gnu-gcc",)


def test_errors_of_the_compiler_are_shown() -> None:
    with pytest.raises(CompileError) as caught:
        find_toolchain(load_target("native")).compile_c("int f(", "f.c")
    assert caught.value.code == "TOOL002"
    assert "f.c:1" in caught.value.problem


def test_zig_for_both_architectures() -> None:
    zig = module.zig_command()
    if zig is None:
        pytest.skip("ziglang is not installed in this Python")
    for name, machine in (("x86-baseline", Machine.X86_64), ("arm64-neon", Machine.AARCH64)):
        target = load_target(name)
        toolchain = Toolchain((*zig, "cc", "-target", f"{target.architecture}-linux-gnu.2.17"), target)
        content, _ = toolchain.compile_c("int f(int x) { return x + 1; }\n", "f.c")
        assert read_elf(content).machine == machine
        assert read_elf(toolchain.link_shared(content, "libf.so", ["f"])).machine == machine
