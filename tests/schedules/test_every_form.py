"""Every form of every schedule equals the reference, bit for bit: pairs of what it may be asked, or (exhaustive) all of it.

What is enumerated follows from the descriptions themselves: a schedule, or a field of a description, that takes no value or one
only fails here until it is enumerated in :mod:`tests.schedules.forms`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from qcompiler.backend.kernel import ConvolutionSpec, Epilogue, KernelSpec, replaceable
from qcompiler.schedules import affine, convolution, convolution_direct, convolution_generic, convolution_plan, depthwise, table
from qcompiler.schedules.dot_product import DEPTH
from qcompiler.schedules.kernel_form import KernelForm, epilogue_form, kernel_form
from tests.schedules.forms.batch import Call, results
from tests.schedules.forms.family import BEFORE, Array, Family
from tests.schedules.forms.pairwise import cover, pairs
from tests.schedules.forms.table import FAMILIES
from tests.schedules.harness import instruction_sets

TOGETHER = 60  # kernels of a library
DIRECT = "convolution_direct"


@dataclass(frozen=True)
class Case:
    """A kernel to run; ``row``: its values of the family's axes, the instruction set first."""

    family: Family
    row: tuple[Any, ...]
    spec: KernelSpec

    @property
    def instruction_set(self) -> str:
        return str(self.row[0])


@cache
def candidates(place: int) -> tuple[Case, ...]:
    """All cases of a family."""
    family = FAMILIES[place]
    rows = product(*family.axes.values())
    made = ((row, family.make(*row)) for row in rows)
    return tuple(Case(family, row, spec) for row, spec in made if spec is not None)


def columns(case: Case) -> tuple[Any, ...]:
    """The values of which every pair is run."""
    return case.row if case.family.everywhere else case.row[1:]


@cache
def pairwise() -> tuple[Case, ...]:
    """Those that hold every pair of values of every family; where all instruction sets would do, they take turns."""
    found = []
    for place in range(len(FAMILIES)):
        by_values: dict[tuple[Any, ...], list[Case]] = defaultdict(list)
        for case in candidates(place):
            by_values[columns(case)].append(case)
        equal = list(by_values.values())
        found += [equal[chosen][turn % len(equal[chosen])] for turn, chosen in enumerate(cover(list(by_values)))]
    return tuple(found)


@cache
def exhaustive() -> tuple[Case, ...]:
    """The whole product of instruction sets and the core axes of every family, with all forms; the other axes take turns."""
    found = list(pairwise())
    for place, family in enumerate(FAMILIES):
        core_columns = [0, *(list(family.axes).index(name) for name in family.core or family.axes)]
        cores: dict[tuple[Any, ...], list[Case]] = defaultdict(list)
        for case in candidates(place):
            cores[tuple(case.row[column] for column in core_columns)].append(case)
        mine = [case for case in found if case.family is family]
        known, reached = {tuple(case.row[column] for column in core_columns) for case in mine}, {form(case) for case in mine}
        for turn, (core, cases) in enumerate(cores.items()):
            turned = [cases[(turn * 7 + step) % len(cases)] for step in range(len(cases))]
            chosen = next((case for case in turned if form(case) not in reached), None)
            if chosen is None and core in known:
                continue
            found.append(chosen or turned[0])
            reached.add(form(found[-1]))
        found += {form(case): case for case in candidates(place) if form(case) not in reached}.values()
    return tuple(found)


def form(case: Case) -> tuple[str, str, str, int]:
    """What is counted of a case: its instruction set, and what :func:`kernel_form` says."""
    bits = case.spec.weight_bits if isinstance(case.spec, ConvolutionSpec) else 0
    return case.instruction_set, case.family.schedule, epilogue_form(case.spec), bits


def mismatches(cases: Sequence[Case], folder: Path) -> Iterator[str]:
    """Builds and runs kernels for one instruction set; what is not the reference's."""
    for first in range(0, len(cases), TOGETHER):
        (part := folder / str(first)).mkdir()
        yield from _mismatches(cases[first : first + TOGETHER], part)


def _mismatches(cases: Sequence[Case], folder: Path) -> Iterator[str]:
    kernels = [table.build_kernel(case.spec, case.instruction_set) for case in cases]
    calls: list[Call] = []
    expected: list[tuple[str, Array]] = []
    for place, (case, kernel) in enumerate(zip(cases, kernels, strict=True)):
        for run in case.family.runs(case.spec, kernel):
            shape = (*run.wanted.shape[:-1], run.stored or run.wanted.shape[-1])
            y = np.full(shape, BEFORE, run.wanted.dtype)
            calls.append((place, {**run.arrays, "y": y}))
            expected.append((f"{case.spec} on {case.instruction_set}, {run.name}", run.wanted))
            for name in replaceable(case.spec):  # the result may take the place of an argument
                if name in run.arrays and (run.arrays[name].dtype, run.arrays[name].size) == (y.dtype, y.size):
                    taken = run.arrays[name].reshape(shape)
                    calls.append((place, {**run.arrays, name: taken, "y": taken}))
                    expected.append((f"{case.spec} on {case.instruction_set}, {run.name}, over {name}", run.wanted))
    found = results(kernels, calls, cases[0].instruction_set, folder)
    for (label, wanted), y in zip(expected, found, strict=True):
        wrong = int((y[..., : wanted.shape[-1]] != wanted).sum())
        if wrong:
            yield f"{wrong} of {wanted.size} differ: {label}"


def check(cases: Sequence[Case], instruction_set: str, folder: Path) -> None:
    chosen = [case for case in cases if case.instruction_set == instruction_set]
    for case in chosen:
        assert kernel_form(case.spec, instruction_set) == KernelForm(*form(case)[1:]), case.spec
    wrong = list(mismatches(chosen, folder))
    assert not wrong, f"{len(wrong)} runs of {len(chosen)} kernels differ from the reference, such as\n" + "\n".join(wrong[:8])


@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_pairs_of_values_equal_the_reference(instruction_set: str, tmp_path: Path) -> None:
    check(pairwise(), instruction_set, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_every_form_equals_the_reference(instruction_set: str, tmp_path: Path) -> None:
    check(exhaustive(), instruction_set, tmp_path)


def test_every_schedule_is_enumerated() -> None:
    """A new schedule, or a new kind of description, has no family yet."""
    modules = {affine, depthwise, convolution_direct, convolution_generic, *table.OTHERS.values()}
    assert {family.schedule for family in FAMILIES} == {module.__name__.rsplit(".", 1)[-1] for module in modules}
    assert {type(case.spec) for case in pairwise()} == set(get_args(KernelSpec))


@pytest.mark.parametrize("kind", [Epilogue, *get_args(KernelSpec)])
def test_every_field_takes_several_values(kind: type) -> None:
    """Nobody knows whether schedules heed a field that always has the same value."""
    specs = [case.spec for case in pairwise()]
    records = [spec.epilogue for spec in specs if isinstance(spec, ConvolutionSpec)] if kind is Epilogue else specs
    for field in fields(kind):
        taken = {getattr(record, field.name) for record in records if isinstance(record, kind)}
        assert len(taken) > 1, f"{kind.__name__}.{field.name} is always {taken}"


def test_the_pairs_are_all_pairs() -> None:
    """Of values of a family; and all instruction sets."""
    for place, family in enumerate(FAMILIES):
        chosen = [case for case in pairwise() if case.family is family]
        assert set().union(*(pairs(columns(case)) for case in chosen)) == set().union(
            *(pairs(columns(case)) for case in candidates(place))
        )
        assert {case.instruction_set for case in chosen} == {case.instruction_set for case in candidates(place)}


@pytest.mark.exhaustive
def test_the_exhaustive_selection_has_all_forms() -> None:
    """On every instruction set, with all bits."""
    assert {form(case) for case in exhaustive()} == {form(case) for place in range(len(FAMILIES)) for case in candidates(place)}


def test_the_direct_schedule_goes_all_its_ways() -> None:
    """What decides between them are sizes, which are no values of a field: the layouts of the convolutions have to reach all."""
    ways: dict[str, bool] = {}
    for case in pairwise():
        instruction = convolution.serving_instruction(case.spec, case.instruction_set) if case.family.schedule == DIRECT else None
        if instruction is None:
            continue
        plan = convolution_plan.plan_convolution(case.spec, instruction)
        parts = [convolution_plan.Part(**vars(plan), first=0, tile=tile) for tile in plan.tiling]
        taken = {name: getattr(plan, name) for name in ("copied", "converted", "inline", "dense", "lowered")} | {
            "fetches ahead": any(part.fetches_ahead for part in parts),
            "streams": any(part.streams for part in parts),
            "by taps": plan.problem.by_taps,
            "parts": len(parts) > 1,
            "windows": len(plan.windows.starts) > 1,
            "uneven windows": plan.windows.stride is None,
            "zeros in windows": plan.windows.groups > 1
            and plan.windows.words * DEPTH >= 2 * case.spec.in_channels // case.spec.groups,
        }
        ways = {name: ways.get(name, False) or bool(value) for name, value in taken.items()}
    assert all(ways.values()), ways
