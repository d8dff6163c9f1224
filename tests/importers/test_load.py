"""The entry of the importers."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_importer_imports_no_framework() -> None:
    code = "import sys, qcompiler.importers.load; print([m for m in ('torch', 'onnx', 'tvm') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
