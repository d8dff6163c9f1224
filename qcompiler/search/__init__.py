"""Above the pipeline: what a budget makes of the bits. Candidates go through the same passes as what ships."""

from qcompiler.search.budget import Budget

__all__ = ["Budget"]
