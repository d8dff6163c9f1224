"""Which kinds of kernels graphs reach, and seeds of few random graphs that reach all that many of them do.

``seeds.json`` holds both; ``python -m examples.benchmarks.fuzz --cover 3000`` makes it again when passes or schedules change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from qcompiler.backend.lower import plan_steps
from qcompiler.ir.graph import Graph
from qcompiler.schedules.kernel_form import kernel_form
from qcompiler.targets.target import available_targets, load_target

SEEDS = Path(__file__).with_name("seeds.json")
Forms = frozenset[str]


def reached(graph: Graph) -> Mapping[str, Forms]:
    """By target: schedule, bits of weights and form of the epilogue of every kernel of an integer graph."""
    specs = {step.spec for step in plan_steps(graph).steps}
    found: dict[str, Forms] = {}
    for name in available_targets():
        forms = (kernel_form(spec, load_target(name).instruction_set) for spec in specs)
        found[name] = frozenset(f"{form.schedule} w{form.bits} ({form.epilogue})" for form in forms)
    return found


def cover(graphs: Mapping[int, Graph]) -> tuple[list[int], dict[str, list[str]]]:
    """Seeds of few kernels, greedily, that together reach what all graphs do on every target, and what that is."""
    sizes = {seed: len({step.spec for step in plan_steps(graph).steps}) for seed, graph in graphs.items()}
    sets = {seed: {(name, form) for name, forms in reached(graph).items() for form in forms} for seed, graph in graphs.items()}
    everything = set().union(*sets.values())
    missing, seeds = set(everything), list[int]()
    while missing:
        best = max(sets, key=lambda seed: (len(sets[seed] & missing) / max(sizes[seed], 1), -seed))
        seeds.append(best)
        missing -= sets[best]
    names = sorted({name for name, _ in everything})
    return sorted(seeds), {name: sorted(form for target, form in everything if target == name) for name in names}


@cache
def known() -> tuple[tuple[int, ...], Mapping[str, Forms]]:
    """The seeds and the forms of ``seeds.json``."""
    content = json.loads(SEEDS.read_text(encoding="utf-8"))
    return tuple(content["seeds"]), {name: frozenset(forms) for name, forms in content["forms"].items()}


def write(seeds: Iterable[int], forms: Mapping[str, Iterable[str]]) -> None:
    """Keep what :func:`cover` found."""
    content = {"seeds": list(seeds), "forms": {name: list(found) for name, found in forms.items()}}
    SEEDS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
