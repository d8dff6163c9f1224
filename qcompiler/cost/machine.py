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

PACKAGES: Final = tuple(f"qcompiler.{room}" for room in ("backend", "cost", "ir", "ops", "schedules", "targets"))
MODULES: Final = ("arith", "errors", "interrupts", "progress", "replace_file")
"""What kernels are made from and measured by: whole packages, and modules of ``qcompiler`` itself."""


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


def sources() -> dict[str, bytes]:
    """The content of every file that a kernel and its measurement depend on, by package and file name."""
    found = {f"qcompiler/{name}.py": (files("qcompiler") / f"{name}.py").read_bytes() for name in MODULES}
    for package in PACKAGES:
        for entry in files(package).iterdir():
            if entry.name.endswith((".py", ".jinja", ".toml")):
                found[f"{package}/{entry.name}"] = entry.read_bytes()
    return found


@lru_cache(maxsize=1)
def _sources_hash() -> str:
    digest = hashlib.sha256()
    for name, content in sorted(sources().items()):
        digest.update(name.encode() + content)
    return digest.hexdigest()[:8]
