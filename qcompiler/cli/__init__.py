"""The command line: ``qcompiler compile | build | pareto | profile | export | run | inspect | targets``, each in its module.

Exit codes: 0 done, 1 a problem of the input (a CompileError), 2 wrong usage, 3 a mistake of the compiler itself.
"""

from __future__ import annotations

import signal
import sys

from qcompiler.cli.app import app
from qcompiler.cli.build import build
from qcompiler.cli.compile import compile_model
from qcompiler.cli.export import export
from qcompiler.cli.inspect import inspect
from qcompiler.cli.options import with_options
from qcompiler.cli.pareto import pareto
from qcompiler.cli.profile import profile
from qcompiler.cli.run import run
from qcompiler.cli.targets import targets

__all__ = ["app", "main"]

app.command(name="compile")(with_options(compile_model))
app.command(name="build")(with_options(build))
app.command(name="pareto")(with_options(pareto))
app.command(name="profile")(with_options(profile))
app.command(name="export")(with_options(export))
app.command(name="run")(run)
app.command(name="inspect")(inspect)
app.command(name="targets")(targets)


def main() -> None:
    """The entry point of the console script. SIGTERM ends it as Ctrl-C does: what is temporary is removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    app()
