"""Use 3: look at what every pass did; change a dump and compile on from it.

python examples/inspect_passes.py
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from digits import digits_data, train

import qcompiler as qc


def main() -> None:
    """Dump, show what each pass changed, compile from a dump in the middle."""
    x_train, y_train, x_test, _ = digits_data()
    with TemporaryDirectory() as folder:
        dumps = Path(folder)
        library = qc.compile(train(x_train, y_train), calibration=x_train[:256], name="digits", dump_ir=dumps)
        before = ""
        for path in sorted(dumps.glob("*.qir")):
            text = path.read_text(encoding="utf-8")
            changed = [line for line in difflib.ndiff(before.splitlines(), text.splitlines()) if line[0] in "+-"]
            print(f"{path.stem}: {len(changed)} changed lines")
            before = text
        print("\nthe integer graph, which defines every output bit:\n")
        print("\n".join(line for line in before.splitlines() if not line.lstrip().startswith("const ")))
        words = re.findall(r"^\t([a-z]\w+)\s", (dumps / "net.s").read_text(encoding="utf-8"), flags=re.MULTILINE)
        common = ", ".join(f"{word} {count}" for word, count in Counter(words).most_common(8))
        print(f"\nnet.s: {len(words):,} instructions; most of them: {common}")

        # A dump is a model: the remaining passes run (bias correction wants samples), and the result is the same to the last bit.
        calibrated = next(dumps.glob("*-calibrate.qir"))
        again = qc.compile(calibrated, calibration=x_train[:256], name="digits")
        assert (again(x_test) == library(x_test)).all()
        print(f"compiled again from {calibrated.name}: the same outputs")


if __name__ == "__main__":
    main()
