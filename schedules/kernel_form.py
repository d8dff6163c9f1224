"""What is counted to know that every kind of kernel was run: its schedule, the form of its epilogue, its bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from qcompiler.backend.kernel import ConvolutionSpec, KernelSpec
from qcompiler.schedules.table import schedule_of


@dataclass(frozen=True, order=True)
class KernelForm:
    """The schedule's name, the ``epilogue`` in words, and the bits of the weights (0 where there are none)."""

    schedule: str
    epilogue: str
    bits: int


def kernel_form(spec: KernelSpec, instruction_set: str) -> KernelForm:
    """The form of the kernel that serves ``spec``, such as ``affine``, ``narrow, residual uint8, out_dtype uint8, short``, 8."""
    schedule = schedule_of(spec, instruction_set).__name__.rsplit(".", 1)[-1]
    return KernelForm(schedule, epilogue_form(spec), spec.weight_bits if isinstance(spec, ConvolutionSpec) else 0)


def epilogue_form(spec: KernelSpec) -> str:
    """How a kernel makes codes, in words; where there is no record of an epilogue, what the description says beside sizes."""
    return ", ".join(_words(spec.epilogue if isinstance(spec, ConvolutionSpec) else spec))


def _words(record: Any) -> Iterator[str]:
    """Flags that are set, texts by name, and whether sums are moved left (by a form's ``left``, within a ``headroom``)."""
    for field in fields(record):
        value = getattr(record, field.name)
        if value is True or (field.name == "headroom" and value is not None) or (field.name == "left" and value):
            yield field.name
        elif isinstance(value, str):
            yield f"{field.name} {value}"
