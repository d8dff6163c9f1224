"""What can go wrong, said so that the reader knows where and what to do.

Whatever a user can cause is a :class:`CompileError` with a code, the place in the user's model, the problem with
values and units, and the remedy. Our own mistakes are :class:`InternalError`.
"""

from __future__ import annotations


class QCompilerError(Exception):
    """Base of every error that qcompiler raises on purpose."""


class CompileError(QCompilerError):
    """A problem of the input: ``code``, ``where``, ``problem``, ``remedy``."""

    def __init__(self, code: str, where: str, problem: str, remedy: str) -> None:
        super().__init__(code, where, problem, remedy)
        self.code = code
        self.where = where
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        def indent(text: str) -> str:
            return text.replace("\n", "\n           ")

        return f"{self.code} at {self.where}\n  problem: {indent(self.problem)}\n  remedy:  {indent(self.remedy)}"


class InternalError(QCompilerError):
    """A mistake of the compiler itself; the message says which rule broke and names the graph's values."""


class AccuracyWarning(UserWarning):
    """A network was compiled, but an output of it, or a part of one, is far from the float model's; the text says where."""
