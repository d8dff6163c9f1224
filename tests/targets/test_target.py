"""Target files check themselves; names, short names and the host's own target."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from qcompiler.errors import CompileError
from qcompiler.targets import target as module
from qcompiler.targets.target import (
    NATIVE_ORDER,
    Target,
    available_targets,
    host_architecture,
    host_cpu_flags,
    host_refusal,
    host_runs,
    load_target,
    parse_cpu_flags,
    parse_target,
)


def text_of(name: str) -> str:
    return files("qcompiler.targets").joinpath(f"{name}.toml").read_text(encoding="utf-8")


def test_every_file_loads() -> None:
    assert available_targets() == ("arm64-dotprod", "arm64-neon", "x86-avx2", "x86-avx512vnni", "x86-avxvnni", "x86-baseline")
    assert set(NATIVE_ORDER) == set(available_targets())
    for name in available_targets():
        target = load_target(name)
        assert target.name == name
        assert target.tvm_target["mtriple"].startswith(target.architecture)


def test_short_names() -> None:
    assert load_target("x86").name == "x86-avx2"
    assert load_target("arm64").name == "arm64-neon"


def test_file_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text_of("x86-avx2").replace('name = "x86-avx2"', 'name = "mine"'))
    assert load_target(str(path)).name == "mine"


@pytest.mark.parametrize("name", ["cuda", "x86-avx3", ""])
def test_unknown_name(name: str) -> None:
    with pytest.raises(CompileError) as caught:
        load_target(name)
    assert str(caught.value) == (
        f"TARGET001 at target {name!r}\n"
        "  problem: there is no such target\n"
        "  remedy:  choose one of arm64-dotprod, arm64-neon, x86-avx2, x86-avx512vnni, x86-avxvnni, x86-baseline; "
        "short: x86 (= x86-avx2), arm64 (= arm64-neon), native (the best that this machine runs)"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "l2_bytes = 262144\n",
            "",
            "TARGET002 at f.toml\n  problem: missing key memory.l2_bytes\n  remedy:  add memory.l2_bytes",
        ),
        (
            "l2_bytes",
            "l3_bytes = 1\nl2_bytes",
            "TARGET003 at f.toml\n  problem: unknown key memory.l3_bytes\n  remedy:  remove it; known keys here: l1_bytes, l2_bytes",
        ),
        (
            "= 262144",
            '= "big"',
            "TARGET004 at f.toml\n  problem: memory.l2_bytes is 'big', not a positive number of bytes\n"
            "  remedy:  set memory.l2_bytes to a positive number of bytes",
        ),
        (
            '"w8a8", ',
            '"w9a8", ',
            "TARGET004 at f.toml\n  problem: bit_pairs is ['w9a8', 'w4a8', 'w2a8', 'w8a4', 'w4a4', 'w2a4'], not a list of pairs such "
            'as "w4a8" with weights of 2, 4 or 8 and activations of 4 or 8 bits\n  remedy:  set bit_pairs to a list of pairs such as '
            '"w4a8" with weights of 2, 4 or 8 and activations of 4 or 8 bits',
        ),
        (
            'instruction_set = "avx2"',
            'instruction_set = "avx9"',
            "TARGET004 at f.toml\n  problem: instruction_set is 'avx9', not one of avx512vnni, avxvnni, avx2, x86-64, dotprod, neon\n"
            "  remedy:  set instruction_set to one of avx512vnni, avxvnni, avx2, x86-64, dotprod, neon",
        ),
    ],
)
def test_mistakes_in_a_file(old: str, new: str, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        parse_target(text_of("x86-avx2").replace(old, new, 1), "f.toml")
    assert str(caught.value) == message


def test_syntax_error_in_a_file() -> None:
    with pytest.raises(CompileError) as caught:
        parse_target("name =", "f.toml")
    assert caught.value.code == "TARGET004"


def pretend(monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, system: str = "linux") -> None:
    monkeypatch.setattr(module.platform, "machine", lambda: machine)
    monkeypatch.setattr(module.sys, "platform", system)
    monkeypatch.setattr(module, "host_cpu_flags", lambda: frozenset(flags.split()))


def all_flags(target: Target) -> str:
    return " ".join(target.cpu_flags)


@pytest.mark.parametrize("name", NATIVE_ORDER)
def test_native_is_the_best_that_runs(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    target = load_target(name)
    pretend(monkeypatch, {"x86_64": "AMD64", "aarch64": "arm64"}[target.architecture], all_flags(target) + " sse2 asimd")
    assert load_target("native").name == name


def test_no_target_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "riscv64", "")
    with pytest.raises(CompileError) as caught:
        load_target("native")
    assert caught.value.code == "TARGET005"
    assert "x86-avx2: the library is for x86_64, this machine is riscv64" in caught.value.problem


def test_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    target = load_target("x86-avx2")
    pretend(monkeypatch, "x86_64", "sse2 fma bmi1 bmi2 abm popcnt")
    assert host_refusal(target) == "this CPU lacks avx2, movbe"
    assert not host_runs(target)
    pretend(monkeypatch, "x86_64", all_flags(target), "darwin")
    assert "ELF files for Linux" in (host_refusal(target) or "")


def test_cpuinfo() -> None:
    assert parse_cpu_flags("flags\t\t: fpu sse2 avx2\nflags : sse2 avx2 x\n") == {"sse2", "avx2"}
    assert parse_cpu_flags("Features\t: fp asimd asimddp\n") == {"fp", "asimd", "asimddp"}
    assert parse_cpu_flags("") == frozenset()
    if host_architecture() == "x86_64":
        assert "sse2" in host_cpu_flags()
