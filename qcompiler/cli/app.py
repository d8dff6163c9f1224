"""The program itself: its help and version, how results are printed, and what exit codes errors become."""

from __future__ import annotations

import json
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from qcompiler.errors import AccuracyWarning, CompileError, QCompilerError

app = typer.Typer(
    name="qcompiler",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Compile float models to integer-only machine code with no runtime.\n\n"
    "A first try, with an ONNX file and a .npy of model inputs to calibrate on:\n\n"
    "`qcompiler compile net.onnx --calibration inputs.npy`\n\n"
    "`qcompiler build net.onnx --calibration inputs.npy --target arm64 --out build/`\n\n"
    "Exit codes: 0 done, 1 a problem of the input, 2 wrong usage, 3 a mistake of qcompiler itself.",
)


def show_version(wanted: bool) -> None:
    """Print the version and end, if ``wanted``."""
    if wanted:
        from importlib.metadata import version

        typer.echo(version("qcompiler"))
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="print the version")] = False,
) -> None:
    """Options of the program itself."""


def emit(as_json: bool, data: Callable[[], Any], text: Callable[[], str]) -> None:
    """Print ``data`` as JSON or ``text`` for people."""
    typer.echo(json.dumps(data(), indent=2, sort_keys=True) if as_json else text().rstrip("\n"))


def as_data(text: str) -> dict[str, Any]:
    """The object that a JSON text holds."""
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@contextmanager
def errors_as_exit_codes(as_json: bool) -> Iterator[None]:
    """Turns what qcompiler raises into a message and an exit code; what it warns of stands in the report that is printed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AccuracyWarning)
            yield
    except CompileError as error:
        if as_json:
            parts = {"code": error.code, "where": error.where, "problem": error.problem, "remedy": error.remedy}
            typer.echo(json.dumps({"error": parts}, indent=2))
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except BrokenPipeError:
        raise  # whoever read the output has seen enough
    except Exception as error:
        if isinstance(error, QCompilerError):
            typer.echo(str(error), err=True)
        else:
            traceback.print_exc()
        typer.echo("This is a mistake of qcompiler, not of your model: please report it.", err=True)
        raise typer.Exit(3) from None
