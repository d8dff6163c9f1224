"""What measurements depend on beside the kernels: the CPU and the versions of what compiles."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Final

CPU_FIELDS: Final = (
    "model name",
    "cpu family",
    "model",
    "stepping",
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
)
"""Lines of /proc/cpuinfo that say which CPU it is, on x86 and on ARM."""

_SOURCES: Final = ("qcompiler.backend", "qcompiler.schedules", "qcompiler.cost")


def parse_cpu_name(cpuinfo: str) -> str:
    """The values of ``CPU_FIELDS`` for the first CPU in the text of /proc/cpuinfo."""
    found = [re.search(rf"^{name}\s*:\s*(.+?)\s*$", cpuinfo, flags=re.MULTILINE) for name in CPU_FIELDS]
    return " ".join(match[1] for match in found if match)


def cpu_name() -> str:
    """Which CPU this machine has."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return parse_cpu_name(text) or platform.processor() or platform.machine()


def package_versions() -> Mapping[str, str]:
    """Versions of what makes kernels; that of qcompiler with a hash of the sources, which change without it."""
    own = f"{version('qcompiler')}+{_sources_hash()}"
    return {"qcompiler": own, "apache-tvm": version("apache-tvm")}


@lru_cache(maxsize=1)
def _sources_hash() -> str:
    digest = hashlib.sha256()
    for package in _SOURCES:
        for entry in sorted(files(package).iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith((".py", ".jinja")):
                digest.update(entry.name.encode() + entry.read_bytes())
    return digest.hexdigest()[:8]
