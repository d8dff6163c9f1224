"""A budget that was said on the command line: errors call its limits by their options."""

from __future__ import annotations

from typing_extensions import override

from qcompiler.search.budget import Budget


class CommandLineBudget(Budget):
    """Spells ``latency_ms`` as ``--latency-ms``."""

    @override
    def spelled(self, name: str) -> str:
        return "--" + name.replace("_", "-")
