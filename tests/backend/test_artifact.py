"""What is written: the same bytes every time, all or nothing, no trace of the machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qcompiler.backend.archive import write_archive
from qcompiler.backend.artifact import FILES, Artifact, write_artifact
from qcompiler.backend.elf import Machine, data_object, merge_objects, read_elf
from qcompiler.backend.program import Program
from qcompiler.errors import CompileError, InternalError
from qcompiler.targets.target import load_target
from tests.tools import need_compiler

Maker = Callable[..., Program]


@pytest.mark.parametrize("target", ["x86-avx2", "arm64-dotprod"])
def test_same_bytes_on_a_second_run_and_from_another_directory(
    program_maker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    need_compiler(target)
    folders = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setenv("TMPDIR", str(tmp_path / name))
        folders.append(
            write_artifact(program_maker("tiny", target, 2), load_target(target), Path(f"out_{name}")).folder.absolute()
        )
    for file in FILES:
        content = (folders[0] / file).read_bytes()
        assert content == (tmp_path / "second" / "out_second" / file).read_bytes(), file
        assert str(tmp_path).encode() not in content
        assert b"main.c" not in content


def test_description(build: Callable[..., Artifact]) -> None:
    artifact = build(batch_tile=3)
    description = json.loads((artifact.folder / "net.json").read_text())
    assert description == artifact.description
    assert description["workspace_bytes"] == 768
    assert description["inputs"][0] == {
        "name": "x",
        "dtype": "uint8",
        "bits": 8,
        "shape": [8, 16],
        "layout": "",
        "scale": 0.1,
        "scale_hex": "0x1.999999999999ap-4",
        "zero": 100,
        "kind": "value",
    }
    sizes = description["sizes"]
    assert sizes["library_bytes"] == (artifact.folder / "libnet.so").stat().st_size
    assert sizes["weight_code_bytes"] < sizes["constant_bytes"] < sizes["object_bytes"]
    assert artifact.files() == list(FILES)
    assert "qc_tiny_k_scale3:" in artifact.listings.assembly
    assert "truncsfhf2:" not in artifact.listings.assembly
    assert "qc_tiny_k_scale3" in artifact.listings.tir


def test_existing_folder_keeps_other_files_and_loses_an_old_report(program_maker: Maker, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    (out / "net.report.json").write_text("old")
    write_artifact(program_maker("tiny", "x86-baseline"), load_target("x86-baseline"), out)
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, "mine.txt"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_is_left_after_a_failure(program_maker: Maker, tmp_path: Path) -> None:
    program = program_maker("tiny", "x86-baseline")
    with pytest.raises(InternalError):
        write_artifact(replace(program, functions=program.functions[:1]), load_target("x86-baseline"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_refused_names_and_folders(program_maker: Maker, tmp_path: Path) -> None:
    program, target = program_maker("tiny", "x86-baseline"), load_target("x86-baseline")
    with pytest.raises(CompileError) as caught:
        write_artifact(replace(program, name="my-net"), target, tmp_path / "out")
    assert str(caught.value) == (
        "BUILD001 at name='my-net'\n"
        "  problem: the name becomes part of C symbols\n"
        "  remedy:  use 1 to 64 letters, digits and underscores"
    )
    with pytest.raises(CompileError) as caught:
        write_artifact(program, target, tmp_path / "out", weights_section='.a"b')
    assert str(caught.value) == (
        "BUILD002 at weights_section\n"
        "  problem: '.a\"b' is not the name of a section\n"
        "  remedy:  use letters, digits, '_', '.' and '$', such as '.flash.weights'"
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(CompileError) as caught:
        write_artifact(program, target, tmp_path / "file")
    assert caught.value.code == "BUILD003"
    assert caught.value.problem == "this is a file, not a folder"
    with pytest.raises(CompileError) as caught:
        write_artifact(program, target, tmp_path / "file" / "out")
    assert caught.value.code == "BUILD003"


def test_weights_lie_in_the_section_asked_for(program_maker: Maker, tmp_path: Path) -> None:
    program = program_maker("tiny", "x86-baseline")
    write_artifact(program, load_target("x86-baseline"), tmp_path / "out", weights_section=".flash.weights")
    sections = read_elf((tmp_path / "out" / "net.o").read_bytes()).sections
    (section,) = [section for section in sections if section.name == ".flash.weights"]
    assert section.content == program.weights
    assert section.alignment == 64


def test_merging_finds_a_symbol_that_is_defined_twice() -> None:
    data = data_object(Machine.X86_64, "twice", ".rodata", b"1")
    with pytest.raises(InternalError, match="twice is defined by two objects"):
        merge_objects([data, data], ["twice"])


def test_archive_index() -> None:
    members = [
        ("a.o", data_object(Machine.X86_64, "a", ".rodata", b"1")),
        ("b.o", data_object(Machine.X86_64, "b", ".rodata", b"2")),
    ]
    archive = write_archive(members)
    assert archive.startswith(b"!<arch>\n/               0 ")
    assert archive[8 + 60 : 8 + 60 + 4] == b"\0\0\0\2"
    offset = int.from_bytes(archive[8 + 60 + 8 : 8 + 60 + 12], "big")
    assert archive[offset : offset + 4] == b"b.o/"
