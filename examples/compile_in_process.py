"""Use 1: compile a torch module and call the library here, with floats or with integer codes.

python examples/compile_in_process.py
"""

from __future__ import annotations

import torch
from digits import Array, digits_data, train

import qcompiler as qc


def main() -> None:
    """Train, compile, compare."""
    x_train, y_train, x_test, y_test = digits_data()
    model = train(x_train, y_train)
    with torch.no_grad():
        expected = model(torch.from_numpy(x_test)).numpy()

    library = qc.compile(model, calibration=x_train[:256])
    found = library(x_test)  # float in, float out
    print(library.report())

    def row(name: str, logits: Array) -> str:
        right, same = (float((logits.argmax(1) == classes).mean()) for classes in (y_test, expected.argmax(1)))
        return f"{name:<24} accuracy {right:.1%}, same class as fp32 {same:.1%}"

    print(row("fp32 (torch)", expected))
    print(row("int8 library", found))

    # Fewer bits for some layers, by patterns over the model's own layer names.
    small = qc.compile(model, calibration=x_train[:256], bits={"1.*": 4, "2.*": "w4a8"})
    print(row("4 bit weights in 1 and 2", small(x_test)))

    # The raw integer entry: codes in, codes out, several threads; the same bits whatever their number.
    port, output = library.inputs[0], library.outputs[0]
    codes = (x_test / port.scale + port.zero + 0.5).clip(0, 255).astype(port.dtype)
    assert (library.run_int(codes, threads=2) == library.run_int(codes)).all()
    print(f"input {port.dtype}{list(port.shape)}: scale {port.scale:.6g}, zero point {port.zero}; output {output.dtype}")


if __name__ == "__main__":
    main()
