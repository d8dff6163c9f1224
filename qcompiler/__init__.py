"""qcompiler: float models to integer-only machine code.

``compile(model, ...)`` gives a library in this process, ``build(model, ..., out=...)`` an artifact for a device,
``export_onnx(model, path, ...)`` the quantized network as ONNX (QDQ); ``dump_ir=`` shows what every pass did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qcompiler.bits import Bits
from qcompiler.errors import AccuracyWarning, CompileError, InternalError, QCompilerError

if TYPE_CHECKING:
    from qcompiler.api import build, compile, export_onnx, fine_tune, pareto, trainable
    from qcompiler.backend.library import Library
    from qcompiler.samples.image_folder import ImageFolder
    from qcompiler.search.budget import Budget

__all__ = [
    "AccuracyWarning",
    "Bits",
    "Budget",
    "CompileError",
    "ImageFolder",
    "InternalError",
    "Library",
    "QCompilerError",
    "build",
    "compile",
    "export_onnx",
    "fine_tune",
    "pareto",
    "trainable",
]

_HOMES = {
    "Budget": "qcompiler.search.budget",
    "build": "qcompiler.api",
    "compile": "qcompiler.api",
    "export_onnx": "qcompiler.api",
    "fine_tune": "qcompiler.api",
    "trainable": "qcompiler.api",
    "pareto": "qcompiler.api",
    "ImageFolder": "qcompiler.samples.image_folder",
    "Library": "qcompiler.backend.library",
}


def __getattr__(name: str) -> Any:
    """Import the heavy parts when they are first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'qcompiler' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
