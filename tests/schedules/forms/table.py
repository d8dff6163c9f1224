"""All families; every schedule of :mod:`qcompiler.schedules.table` has some."""

from __future__ import annotations

from typing import Final

from tests.schedules.forms import convolutions, elementwise, movement, windows

FAMILIES: Final = (*convolutions.FAMILIES, *elementwise.FAMILIES, *windows.FAMILIES, *movement.FAMILIES)
