"""What is installed, what imports what, and that the commands of the README are the ones that CI runs."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import pytest

from tests.tools import need

ROOT: Final = Path(__file__).parents[1]
FOLDERS: Final = {"qcompiler": "qcompiler", "passes": "qcompiler.passes"} | {
    name: f"qcompiler.{name}" for name in ("schedules", "targets")
}

LAYERS: Final = (
    ("errors", "arith", "progress", "codes", "interrupts", "replace_file"),
    ("bits", "targets", "ir", "allocate"),
    ("ops",),
    ("interpret", "observers", "samples", "dump"),
    ("calibrate",),
    ("passes", "importers", "report", "check_float", "output_parts"),
    ("sensitivity", "tuning", "output_quality"),
    ("backend", "pipeline", "exporters"),
    ("cost", "distill", "verification"),
    ("search", "training"),
    ("loading",),
    ("api",),
    ("cli",),
)
"""What stands further down may import what stands above it. Parts of one line do not import each other."""

SAME_PART: Final = {"schedules": "backend"}
"""Schedules build the backend's kernels: they are one part."""

HEAVY: Final = {"torch", "tvm", "onnx"}

COMMANDS: Final = (
    "python3 -m venv .venv && .venv/bin/pip install -e '.[demo]' && .venv/bin/python examples/demo.py",
    "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest",
)


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def sources() -> Iterator[tuple[str, Path]]:
    """Every module of the package with its name."""
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join((package, *(p for p in parts if p != "__init__"))), path


def imports(tree: ast.AST) -> Iterator[str]:
    """Names of modules that are imported anywhere in ``tree``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module
            if node.module == "qcompiler":
                yield from (f"qcompiler.{alias.name}" for alias in node.names)


def part_of(module: str) -> str | None:
    """The part of the package that a module belongs to; None for others and for the package itself."""
    words = module.split(".")
    return SAME_PART.get(words[1], words[1]) if words[0] == "qcompiler" and len(words) > 1 else None


def test_every_package_is_listed() -> None:
    listed = set(project()["tool"]["setuptools"]["packages"])
    found = {name if path.name == "__init__.py" else name.rpartition(".")[0] for name, path in sources()}
    assert listed == found


def test_every_package_has_an_init() -> None:
    missing = {path.parent for _, path in sources() if not (path.parent / "__init__.py").exists()}
    assert not missing


def test_every_data_file_is_in_the_wheel() -> None:
    patterns = project()["tool"]["setuptools"]["package-data"]
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_dir() or path.suffix in (".py", ".pyc"):
                continue
            holder = ".".join((package, *path.relative_to(ROOT / folder).parent.parts))
            assert any(fnmatch(path.name, pattern) for pattern in patterns.get(holder, [])), f"{path} is not installed"


def test_layers() -> None:
    level = {part: index for index, parts in enumerate(LAYERS) for part in parts}
    wrong = []
    for name, path in sources():
        part = part_of(name)
        if part is None:
            continue
        assert part in level, f"{name} stands in no layer"
        for imported in imports(ast.parse(path.read_text(encoding="utf-8"))):
            other = part_of(imported)
            if other not in (None, part) and level.get(str(other), -1) >= level[part]:
                wrong.append(f"{name} imports {imported}")
    assert not wrong


def test_the_graph_needs_no_framework() -> None:
    for name, path in sources():
        if name.startswith("qcompiler.ir"):
            assert not HEAVY & {module.split(".")[0] for module in imports(ast.parse(path.read_text(encoding="utf-8")))}, name


@pytest.mark.parametrize("arguments", [["-c", "import qcompiler"], ["-m", "qcompiler", "--help"]], ids=["import", "help"])
def test_start_is_light(arguments: list[str], tmp_path: Path) -> None:
    if arguments[0] == "-m":
        arguments = ["-c", "import sys; sys.argv = ['qcompiler', '--help']; from qcompiler.cli import main; main()"]
    listing = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], check=True, capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in listing.stderr.splitlines()}
    assert "qcompiler" in loaded
    assert not (HEAVY | {"numpy", "networkx"}) & loaded


def test_the_readme_has_the_commands_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert tuple(line for line in readme if line.startswith("python3 -m venv")) == COMMANDS
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "grep '^python3 -m venv' README.md" in script


def test_no_machine_paths_in_the_project() -> None:
    need("git")
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("this is no git checkout")
    needles = ("/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", "/op" + "t/")
    for name in listing.stdout.splitlines():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".jinja", ".c", ".txt", "") and path.is_file():
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert not [needle for needle in needles if needle in text], name
