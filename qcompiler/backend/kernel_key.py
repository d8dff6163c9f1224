"""A stable text for a kernel as it ships: operator, shape, layout, epilogue, bits and target."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Final

from qcompiler.backend.kernel import KernelSpec

LEFT_OUT: Final = ("pre_shifted", "saturated", "short", "word_bounds", "left")
"""Fields of an epilogue that say in which form it is written, which the constants of a layer decide about.

In layers with few input channels the forms differ by up to a seventh of the time, in affine maps by half of it.
"""
LONGEST_VALUE: Final = 64  # characters of one field; longer ones, such as tables of indices, are replaced by a hash


def kernel_key(spec: KernelSpec, target: str) -> str:
    """The key of a kernel, as in ``x86-avx2 convolution batch=1 height=32 ... weight_bits=4 narrow=yes``.

    Equal kernels have equal keys, other ones have others. The bits of the input's codes are not in it where the target stores
    them as bytes: the kernel is the same. Nor are ``LEFT_OUT``.
    """
    kind = type(spec).__name__.removesuffix("Spec").lower()
    return " ".join((target, kind, *(f"{name}={_short(value)}" for name, value in _fields(spec))))


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a description, those of the descriptions in it among them."""
    for field in fields(value):
        if field.name in LEFT_OUT:
            continue
        inner = getattr(value, field.name)
        if is_dataclass(inner):
            yield from _fields(inner)
        else:
            yield field.name, inner


def _short(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= LONGEST_VALUE else f"#{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return f"({','.join(map(_text, value))})"
    if is_dataclass(value):
        return f"({','.join(_text(inner) for _, inner in _fields(value))})"
    return "none" if value is None else str(value)
