"""Text tests: parse a dump, run one pass, compare the dump. Each file in golden/ is named after its pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qcompiler.bits import Bits
from qcompiler.calibrate import FirstSamples
from qcompiler.ir.text import parse_graph, print_graph
from qcompiler.ir.verify import verify
from qcompiler.ops.table import OPERATORS
from qcompiler.passes.graph_pass import run_passes
from qcompiler.pipeline import Settings, passes

FOLDER = Path(__file__).parent / "golden"
FILES = sorted(FOLDER.glob("*.txt"))
SEPARATOR = "\n--- after\n"
SAMPLES = FirstSamples(inputs=[np.array([[[[1.0, 3.0]], [[0.5, -1.0]]]], dtype=np.float32)])
PASSES = {step.name: step for step in passes(Settings(pins={"fc*": Bits.parse("w4a4")}, samples=SAMPLES))}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_pass_gives_the_expected_dump(path: Path, update_golden: bool) -> None:
    before, _, expected = path.read_text().partition(SEPARATOR)
    graph = parse_graph(before)
    result = run_passes(graph, [PASSES[path.stem.split(".")[0]]])
    found = print_graph(result)
    if update_golden:
        path.write_text(print_graph(graph) + SEPARATOR + found)
        expected = found
    assert found == expected
    assert parse_graph(found) == result
    verify(result, OPERATORS)


def test_every_graph_pass_has_a_text_test() -> None:
    assert {path.stem.split(".")[0] for path in FILES} == set(PASSES) - {"calibrate", "round_weights"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_pass_is_idempotent_or_changes_the_stage(path: Path) -> None:
    step = PASSES[path.stem.split(".")[0]]
    if step.requires is not step.gives:
        pytest.skip("the pass leaves the stage it requires, so it cannot run twice")
    graph = run_passes(parse_graph(path.read_text().partition(SEPARATOR)[0]), [step])
    assert run_passes(graph, [step]) == graph
