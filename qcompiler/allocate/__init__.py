"""Which choice every variable gets, numbers in and numbers out: the least total of one resource within limits on others.

``solve.py`` is the entry. ``tables.py`` checks the numbers, ``space.py`` makes exact integers of them, over ``columns.py``;
``search.py`` finds the optimum with CP-SAT (``program.py``) on the columns that ``relaxation.py`` leaves; ``clashes.py`` says why
nothing fits. What the numbers mean (bits, bytes, ns) is the caller's.
"""

from qcompiler.allocate.solve import Allocation, allocate, pareto, ranked
from qcompiler.allocate.tables import Limit, Variable, Wording

__all__ = ["Allocation", "Limit", "Variable", "Wording", "allocate", "pareto", "ranked"]
