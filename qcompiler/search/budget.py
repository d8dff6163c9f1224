"""What a user wants of the bits: limits, and what is to be as small as possible within them.

Amounts are numbers in the unit of their field's name, or text: "1.5 MiB", "200 kB", and for sizes and BOPS a share of the same at
8 bits, "50%".

Errors: BUDGET001 a limit cannot be understood, BUDGET002 a wish is none of those that there are. (BUDGET003, BUDGET004: what was
wished for cannot be had, see ``search.py`` and ``choose.py``.)
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Final

from qcompiler.bits import ACTIVATION_BITS, WEIGHT_BITS
from qcompiler.errors import CompileError
from qcompiler.sensitivity.analyze import METRICS

UNITS: Final = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
OBJECTIVES: Final = ("sensitivity", "size", "latency", "bops")
SAMPLES: Final = 128

Amount = int | float | str


@dataclass(frozen=True)
class Budget:
    """Limits on the whole network; None where there is none.

    ``size``: bytes of packed weight codes, or a share of the same at 8 bits; kernels pad channels to whole vectors and may repeat
    depthwise codes, so the file has more, which the report says. ``latency_ms``: of one sample on one thread of this machine, as
    measured kernels add up, or as ``latency_table`` (a file of ``qcompiler profile``) says for another; 3 % of it stay
    free, for what predictions are off. ``bops``: multiply-accumulates times weight bits times input bits, or a share of the same
    at 8 bits. ``average_bits``: of all weights.
    ``activation_memory``: bytes of the workspace for one sample, by the memory plan. It is the same whatever the bits, since
    activations of 4 bits are stored one to a byte: a network that needs more is refused, BUDGET004.
    ``sensitivity``: the most that is added to the loss's estimate, in the metric's units.

    ``accuracy_drop``: measured, in percent of the samples of ``evaluation``: what top-1 loses, where there are labels, otherwise
    how many get another class than the float model gives them. ``sqnr_db``: measured likewise, the least ratio of signal to
    quantization noise of the first output.
    ``minimize``: "sensitivity" within the limits; or "size", "latency" or "bops" within a limit on what is lost
    (``accuracy_drop``, ``sqnr_db`` or ``sensitivity``), "size" being the default where only that is limited.

    ``weight_bits``, ``activation_bits``: the choices. ``metric``: how sensitivity is estimated on ``samples`` samples, see
    ``qcompiler.sensitivity.analyze``; by default "kl" where there are scores of classes, else "sqnr".
    ``evaluation``: an array of samples, or a pair of samples and labels; by default the calibration samples.
    """

    size: Amount | None = None
    latency_ms: float | None = None
    bops: Amount | None = None
    average_bits: float | None = None
    activation_memory: Amount | None = None
    sensitivity: float | None = None
    accuracy_drop: float | None = None
    sqnr_db: float | None = None
    minimize: str | None = None
    weight_bits: tuple[int, ...] = (8, 4, 2)
    activation_bits: tuple[int, ...] = (8,)
    metric: str | None = None
    samples: int = SAMPLES
    latency_table: Any = None
    evaluation: Any = None

    def __post_init__(self) -> None:
        for name in ("latency_ms", "average_bits", "sensitivity", "accuracy_drop", "sqnr_db"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and math.isfinite(value) and value >= 0):
                problem = f"{value!r} is no limit"
                raise CompileError("BUDGET001", self.spelled(name), problem, "give a number that is not negative")
        for name in ("size", "bops", "activation_memory"):
            amount(self.spelled(name), getattr(self, name), 1)
        for name, legal in (("minimize", (None, *OBJECTIVES)), ("metric", (None, *METRICS))):
            if getattr(self, name) not in legal:
                remedy = f"choose one of {', '.join(filter(None, legal))}"
                raise CompileError("BUDGET002", self.spelled(name), f"{getattr(self, name)!r} is none", remedy)
        for name, bits in (("weight_bits", WEIGHT_BITS), ("activation_bits", ACTIVATION_BITS)):
            given = getattr(self, name)
            if not given or not set(given) <= set(bits):
                remedy = f"give some of {', '.join(map(str, bits))}"
                raise CompileError("BUDGET002", name, f"{given!r} are no choices of bits", remedy)
        if self.minimize not in (None, "sensitivity") and not self.is_measured and self.sensitivity is None:
            problem = f"the least {self.minimize} is that of the fewest bits, whatever they cost in accuracy"
            remedy = "say accuracy_drop, sqnr_db or sensitivity as well"
            raise CompileError("BUDGET002", self.spelled("minimize"), problem, remedy)
        if not any(getattr(self, f.name) is not None for f in fields(self)[:8]):
            raise CompileError("BUDGET001", "budget", "there is no limit", 'say at least one, as in Budget(size="50%")')

    def spelled(self, name: str) -> str:
        """What errors call the limit or wish ``name``."""
        return name

    @property
    def is_measured(self) -> bool:
        """Whether what is lost has to be measured."""
        return self.accuracy_drop is not None or self.sqnr_db is not None

    @property
    def goal(self) -> str:
        """What is minimized."""
        if self.minimize is not None:
            return self.minimize
        costs = (self.size, self.latency_ms, self.bops, self.average_bits)
        loses = self.is_measured or self.sensitivity is not None
        return "size" if loses and all(cost is None for cost in costs) else "sensitivity"


def size_notes(budget: Budget, packed: int, stored: int) -> list[str]:
    """What is to be said where a size in bytes holds for the codes as ``packed``, but not as kernels have ``stored`` them."""
    if budget.size is None or quantity("size", budget.size)[1] == "%":
        return []
    most = amount("size", budget.size, 0)
    if most is None or stored <= most:
        return []
    counted = f"the size is limited to {most:,} bytes of packed weight codes, of which there are {packed:,}"
    return [f"{counted}; kernels, which pad channels to whole vectors, store {stored:,}"]


def amount(name: str, value: Amount | None, whole: int) -> int | None:
    """``value`` as a number, shares being of ``whole``; BUDGET001 if it cannot be understood."""
    if value is None:
        return None
    number, unit = quantity(name, value)
    return math.floor(number * unit_size(unit, whole))


def quantity(name: str, value: Amount) -> tuple[Fraction, str]:
    """The number, exactly as it is written, and its unit ("", "%", "MiB"); BUDGET001 if there is no such unit."""
    text = str(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return Fraction(text), ""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%|[a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in (*UNITS, "%"):
        remedy = 'write a number, "1.5 MiB", "200 kB", or a share such as "50%"'
        raise CompileError("BUDGET001", name, f"{value!r} is no amount", remedy)
    return Fraction(match[1]), match[2]


def unit_size(unit: str, whole: int) -> Fraction:
    """What one ``unit`` of a quantity stands for, shares being of ``whole``."""
    return Fraction(whole, 100) if unit == "%" else Fraction(UNITS[unit.lower()])
