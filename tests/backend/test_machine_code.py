"""The check of the machine code finds what is planted, and knows what compilers write."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from qcompiler.backend.artifact import Artifact
from qcompiler.backend.elf import read_elf
from qcompiler.backend.machine_code import (
    MachineCodeError,
    check_instructions,
    load_mnemonics,
    parse_disassembly,
    parse_listing,
    verify_library,
    verify_listings,
    verify_symbols,
)
from tests.tools import need

X86_FLAGS = ["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"]
COMPILERS = {"x86_64": "cc", "aarch64": "aarch64-linux-gnu-gcc"}
OBJDUMPS = {"x86_64": "objdump", "aarch64": "aarch64-linux-gnu-objdump"}

PLANTED = [
    ("x86_64", "addps %xmm1, %xmm0", "addps (float)"),
    ("x86_64", "mulsd %xmm1, %xmm0", "mulsd (float)"),
    ("x86_64", "cvtsi2sdl %eax, %xmm0", "cvtsi2sd"),
    ("x86_64", "ucomiss %xmm1, %xmm0", "ucomiss (float)"),
    ("x86_64", "fadds (%rdi)", "fadds (float)"),
    ("x86_64", "vfmadd213ps %ymm1, %ymm2, %ymm0", "vfmadd213ps (float)"),
    ("x86_64", "vaddps %zmm1, %zmm2, %zmm0", "vaddps (float)"),
    ("x86_64", "vcvtdq2ps %zmm1, %zmm0", "vcvtdq2ps (float)"),
    ("x86_64", "vcmpltps %zmm1, %zmm2, %k1", "vcmplt"),
    ("x86_64", "divl %ecx", "div"),
    ("x86_64", "idivq (%rdi)", "idivq (divide)"),
    ("x86_64", "vdivps %zmm1, %zmm2, %zmm0", "vdivps (float)"),
    ("x86_64", "rdtsc", "rdtsc (unknown)"),
    ("x86_64", ".byte 0x06", "(bad) (unknown)"),
    ("aarch64", "fadd v0.4s, v1.4s, v2.4s", "fadd (float)"),
    ("aarch64", "fmul s0, s1, s2", "fmul (float)"),
    ("aarch64", "fcmp s0, s1", "fcmp (float)"),
    ("aarch64", "scvtf v0.4s, v1.4s", "scvtf (float)"),
    ("aarch64", "fcvtzs w0, s0", "fcvtzs (float)"),
    ("aarch64", "sdiv x0, x1, x2", "sdiv (divide)"),
    ("aarch64", "udiv w0, w1, w2", "udiv (divide)"),
    ("aarch64", "sevl", "sevl (unknown)"),
    ("aarch64", ".inst 0xffffffff", ".inst"),
]

HARMLESS = [
    ("x86_64", "rep stosq; lock cmpxchgq %rcx, (%rdi); cmovnel %eax, %ecx; setae %al; movzbl %al, %eax; movslq %eax, %rcx; cltq"),
    ("x86_64", "andps %xmm1, %xmm0; xorpd %xmm1, %xmm0; movaps %xmm1, %xmm0; shufps $0, %xmm1, %xmm0; unpcklps %xmm1, %xmm0"),
    ("x86_64", "movss (%rdi), %xmm0; blendvps %xmm0, %xmm1, %xmm2; insertps $1, %xmm1, %xmm0; movhlps %xmm1, %xmm0"),
    ("x86_64", "pmaddwd %xmm1, %xmm0; pmuludq %xmm1, %xmm0; packusdw %xmm1, %xmm0; pmovzxbd (%rdi), %xmm0; psrad $3, %xmm0"),
    (
        "x86_64",
        "vpdpbusd %zmm1, %zmm2, %zmm0; vpmullq %zmm1, %zmm2, %zmm0; vpsraq $3, %zmm1, %zmm0; vpternlogd $255, %zmm0, %zmm0, %zmm0",
    ),
    (
        "x86_64",
        "vpminsd %zmm1, %zmm2, %zmm0; vpmovusdb %zmm0, (%rdi); vpmovqd %zmm0, %ymm1; vpcmpgtd %zmm1, %zmm0, %k1; kmovw %k1, %eax",
    ),
    (
        "x86_64",
        "vpermt2d %zmm1, %zmm2, %zmm0; vpermb %zmm1, %zmm2, %zmm0; vbroadcasti32x4 (%rdi), %zmm0; vinserti64x4 $1, %ymm1, %zmm2, %zmm0",
    ),
    ("x86_64", "vshufi64x2 $1, %zmm1, %zmm2, %zmm0; vextracti32x4 $1, %zmm1, %xmm0; vpsravd %zmm1, %zmm2, %zmm0; vzeroupper"),
    (
        "x86_64",
        "vpblendvb %ymm1, %ymm2, %ymm3, %ymm0; vpbroadcastb (%rdi), %ymm0; vperm2i128 $1, %ymm1, %ymm2, %ymm0; nopw 0(%rax,%rax)",
    ),
    ("aarch64", "ldp q0, q1, [x0], #32; sdot v0.4s, v1.16b, v2.4b[1]; udot v0.4s, v1.16b, v2.16b; smull2 v0.4s, v1.8h, v2.8h"),
    (
        "aarch64",
        "sqxtn v0.4h, v1.4s; sqxtun2 v0.16b, v1.8h; sshll v0.4s, v1.4h, #0; uxtl v0.8h, v1.8b; srshl v0.4s, v1.4s, v2.4s",
    ),
    ("aarch64", "smax v0.4s, v1.4s, v2.4s; sqrdmulh v0.4s, v1.4s, v2.4s; zip1 v0.4s, v1.4s, v2.4s; tbl v0.16b, {v1.16b}, v2.16b"),
    (
        "aarch64",
        "fmov d0, x0; fmov w0, s0; umov w0, v0.b[1]; ins v0.s[1], w0; dup v0.4s, w0; movi v0.4s, #1; saddlp v0.4s, v1.8h",
    ),
    (
        "aarch64",
        "ldaxr w0, [x1]; stlxr w2, w0, [x1]; cbz x0, .; tbnz w0, #3, .; b.ne .; csel x0, x1, x2, eq; smaddl x0, w1, w2, x3; bfi w0, w1, 2, 3",
    ),
    (
        "aarch64",
        "smlal v0.2d, v1.2s, v2.2s; smlal2 v0.2d, v1.4s, v2.4s; sshl v0.2d, v1.2d, v2.2d; shrn v0.2s, v1.2d, #3; xtn2 v0.4s, v1.2d; uaddw v0.8h, v1.8h, v2.8b",
    ),
]


def library_of(tmp_path: Path, architecture: str, instructions: str) -> bytes:
    """A shared library with one function of these instructions."""
    compiler = COMPILERS[architecture]
    need(compiler, OBJDUMPS[architecture])
    text = f'__asm__(".globl planted\\n.type planted, %function\\nplanted:\\n{instructions}\\nret\\n");\n'
    (tmp_path / "planted.c").write_text(text)
    flags = ["-march=armv8.2-a+dotprod"] if architecture == "aarch64" else X86_FLAGS
    command = [compiler, *flags, "-shared", "-nostdlib", "-Wl,--build-id=none", "planted.c", "-o", "planted.so"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if done.returncode and "no such instruction" in done.stderr:
        pytest.skip(f"{compiler} does not know {instructions}")
    assert done.returncode == 0, done.stderr
    return (tmp_path / "planted.so").read_bytes()


@pytest.mark.parametrize(("architecture", "instruction", "found"), PLANTED)
def test_planted_instruction_is_found(tmp_path: Path, architecture: str, instruction: str, found: str) -> None:
    content = library_of(tmp_path, architecture, instruction)
    with pytest.raises(MachineCodeError) as caught:
        verify_library(content, architecture, OBJDUMPS[architecture], ["planted"], pool=False)
    assert "planted 0x" in str(caught.value)
    assert found in str(caught.value)


@pytest.mark.parametrize(("architecture", "instruction", "found"), PLANTED)
def test_planted_instruction_is_found_in_a_listing(architecture: str, instruction: str, found: str) -> None:
    listing = f"\t.text\nplanted:\n.LBB0_1:\n\tadd\tx0, x0, x1\n\t{instruction}\n\tret\n\t.section\t.rodata\n\t.long 7\n"
    with pytest.raises(MachineCodeError, match="planted line 5"):
        verify_listings([listing], architecture, pool=False)


@pytest.mark.parametrize(("architecture", "instructions"), HARMLESS)
def test_integer_instructions_are_known(tmp_path: Path, architecture: str, instructions: str) -> None:
    content = library_of(tmp_path, architecture, instructions.replace("; ", "\\n"))
    counts = verify_library(content, architecture, OBJDUMPS[architecture], ["planted"], pool=False)
    assert sum(counts.values()) == len(instructions.split("; ")) + 1
    verify_listings(["planted:\n\t" + instructions.replace("; ", "\n\t") + "\n"], architecture, pool=False)


@pytest.mark.parametrize("objdump", ["objdump", "llvm-objdump"])
@pytest.mark.parametrize("target", ["x86-avx512vnni", "x86-avxvnni", "x86-avx2", "x86-baseline", "arm64-dotprod", "arm64-neon"])
def test_disassemblers_agree_on_an_artifact(build: Callable[..., Artifact], target: str, objdump: str) -> None:
    artifact = build(target=target)
    architecture = artifact.description["architecture"]
    tool = OBJDUMPS[architecture] if objdump == "objdump" else objdump
    need(tool)
    content = (artifact.folder / "libnet.so").read_bytes()
    assert verify_library(content, architecture, tool, read_elf(content).exported, pool=True)
    verify_listings([artifact.listings.assembly], architecture, pool=True)


def test_exports_must_be_those_of_the_interface(tmp_path: Path) -> None:
    content = library_of(tmp_path, "x86_64", "nop")
    with pytest.raises(MachineCodeError, match=r"the library offers \['planted'\], not \['other'\]"):
        verify_library(content, "x86_64", "objdump", ["other"], pool=False)


def test_calls_must_stay_inside(tmp_path: Path) -> None:
    for callee, allowed in (("memcpy", True), ("puts", False)):
        listing = f"f:\n\tcallq\t{callee}@PLT\n\tjmp\tg\ng:\n\tretq\n"
        if allowed:
            verify_listings([listing], "x86_64", pool=False)
        else:
            with pytest.raises(MachineCodeError, match="f line 2: call of puts"):
                verify_listings([listing], "x86_64", pool=False)
    with pytest.raises(MachineCodeError, match="call of pthread_create"):
        verify_listings(["f:\n\tbl\tpthread_create\n"], "aarch64", pool=False)
    verify_listings(["f:\n\tbl\tpthread_create\n"], "aarch64", pool=True)


def test_needed_symbols_and_writable_data(tmp_path: Path) -> None:
    need("cc")
    sources = {
        "needs puts": "int puts(const char *); int f(void) { return puts(0); }",
        "writable": "int x = 3; int f(void) { return ++x; }",
    }
    patterns = {"needs puts": "the code needs puts from its surroundings", "writable": r"the code has writable data: \.data"}
    for name, source in sources.items():
        (tmp_path / "f.c").write_text(source)
        subprocess.run(["cc", "-c", "-O1", "-fPIC", "f.c", "-o", "f.o"], cwd=tmp_path, check=True)
        with pytest.raises(MachineCodeError, match=patterns[name]):
            verify_symbols(read_elf((tmp_path / "f.o").read_bytes()), pool=True)


def test_lines_that_are_not_understood_are_an_error() -> None:
    mnemonics = load_mnemonics("x86_64")
    text = "\nx.so:     file format elf64-x86-64\n\nDisassembly of section .text:\n\n0000000000001000 <f>:\n    1000:\t90\tnop\n\t...\n"
    with pytest.raises(MachineCodeError, match="a line that is not understood"):
        list(parse_disassembly(text, mnemonics))
    (nop,) = list(parse_disassembly(text.replace("\t...\n", ""), mnemonics))
    assert (nop.function, nop.place, nop.mnemonic, nop.length) == ("f", "0x1000", "nop", 1)
    assert check_instructions([nop], "x86_64", {"f"}, pool=False) == 1


def test_data_directives_in_code_are_an_error() -> None:
    for directive in (".byte 1", ".long 5", ".inst 0"):
        assert [i.mnemonic for i in parse_listing(f"f:\n\t{directive}\n", load_mnemonics("aarch64"))] == [directive.split()[0]]


def test_no_mnemonic_is_both_allowed_and_forbidden() -> None:
    for architecture, names in (
        ("x86_64", "add sub imul mov vpaddd vpmaddwd vmovaps vpermps"),
        ("aarch64", "add mul fmov sdot bfi"),
    ):
        table = load_mnemonics(architecture)
        for name in names.split():
            assert table.refusal(name) is None
            assert not any(pattern.fullmatch(name) for _, pattern in table.forbidden)
