"""How errors read."""

from __future__ import annotations

import pickle

import pytest

from qcompiler import Bits, CompileError, InternalError, QCompilerError


def test_the_whole_text() -> None:
    error = CompileError("ALLOC002", "resnet (budget)", "no assignment fits 1.50 MiB of weights", "raise the weight budget")
    assert str(error) == (
        "ALLOC002 at resnet (budget)\n"
        "  problem: no assignment fits 1.50 MiB of weights\n"
        "  remedy:  raise the weight budget"
    )  # fmt: skip
    assert (error.code, error.where) == ("ALLOC002", "resnet (budget)")
    assert (error.problem, error.remedy) == ("no assignment fits 1.50 MiB of weights", "raise the weight budget")


def test_more_lines_stay_in_their_column() -> None:
    error = CompileError("IMPORT001", "net", "2 operators are not supported:\nconv (Einsum)\nhead (Erf)", "replace them\nor cut")
    assert str(error) == (
        "IMPORT001 at net\n"
        "  problem: 2 operators are not supported:\n"
        "           conv (Einsum)\n"
        "           head (Erf)\n"
        "  remedy:  replace them\n"
        "           or cut"
    )  # fmt: skip


def test_an_error_as_a_user_meets_it() -> None:
    with pytest.raises(CompileError) as caught:
        Bits.parse("w3a8")
    assert str(caught.value) == (
        "BITS001 at bits\n"
        "  problem: 3 weight bits have no integer kernel; weights have 2, 4, 8 bits\n"
        "  remedy:  choose one of 2, 4, 8"
    )  # fmt: skip


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(CompileError("RUN009", "net", "closed", "load it again")))
    assert isinstance(error, CompileError)
    assert str(error) == "RUN009 at net\n  problem: closed\n  remedy:  load it again"


def test_both_kinds_have_one_base() -> None:
    assert issubclass(CompileError, QCompilerError)
    assert issubclass(InternalError, QCompilerError)
    assert not issubclass(InternalError, CompileError)
