"""What measurements depend on: every source of a kernel is in the key."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from qcompiler.cost import machine

MAKERS = ("qcompiler.backend.lower", "qcompiler.cost.measure", "qcompiler.cost.tile_search", "qcompiler.schedules.table")
"""What chooses, builds and runs kernels."""


def source(module: str) -> Path | None:
    """The file of a module or package of qcompiler, found without importing it; None where there is none of that name."""
    room, _, rest = module.removeprefix("qcompiler.").partition(".")
    spec = find_spec(f"qcompiler.{room}")
    if spec is None or spec.origin is None or (rest and spec.submodule_search_locations is None):
        return None
    path = Path(spec.origin).parent / f"{rest}.py" if rest else Path(spec.origin)
    return path if path.is_file() else None


def imported(module: str) -> Iterator[str]:
    """The modules of qcompiler that ``module`` names in an import, wherever it stands."""
    path = source(module)
    assert path is not None
    for part in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(part, ast.ImportFrom) and part.module:
            names = [part.module, *(f"{part.module}.{alias.name}" for alias in part.names)]
        elif isinstance(part, ast.Import):
            names = [alias.name for alias in part.names]
        yield from (name for name in names if name.startswith("qcompiler.") and source(name) is not None)


def test_every_module_that_makers_of_kernels_import_is_hashed() -> None:
    names = {name.replace("/", ".").removesuffix(".py").removesuffix(".__init__") for name in machine.sources()}
    todo, seen = [*MAKERS], set[str]()
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += imported(module)
    assert len(seen) > 60
    assert seen - names - set(machine.PACKAGES) == set()


def test_templates_and_targets_are_hashed() -> None:
    assert {"qcompiler.backend/net.c.jinja", "qcompiler.targets/x86-avx2.toml"} < set(machine.sources())


def test_a_change_of_any_source_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    content = machine.sources()
    keys = set()
    for changed in (None, "qcompiler/arith.py", "qcompiler.ops/requantize.py"):
        shown = {name: text + b" " * (name == changed) for name, text in content.items()}
        monkeypatch.setattr(machine, "sources", lambda shown=shown: shown)
        keys.add(machine._sources_hash.__wrapped__())
    assert len(keys) == 3
