"""Use 2: build the C library for a device, link it into a program, run that where it can run.

python examples/build_for_device.py [TARGET [FOLDER]]     e.g. arm64-neon build/
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from digits import digits_data, train

import qcompiler as qc
from qcompiler.targets.target import host_runs, load_target

MAIN = Path(__file__).parent / "main.c"


def main(target: str = "native", folder: str = "digits-build") -> None:
    """Build ``folder``, compile main.c with it, classify one test image."""
    x_train, y_train, x_test, y_test = digits_data()
    artifact = qc.build(train(x_train, y_train), calibration=x_train[:256], target=target, name="net", out=folder)
    port = artifact.description["inputs"][0]
    print(f"{folder}/: {', '.join(artifact.files())}; {artifact.description['sizes']['archive_bytes']:,} bytes of libnet.a")

    image = Path(folder) / "image.codes"  # what a camera gives: integers
    image.write_bytes((x_test[0] / port["scale"] + port["zero"] + 0.5).clip(0, 255).astype(port["dtype"]).tobytes())

    cpu = load_target(artifact.description["target"])
    at_home = host_runs(cpu)
    compilers = ("cc", "gcc", "clang") if at_home else (f"{cpu.c_compiler.prefix}gcc",)
    compiler = next(filter(shutil.which, compilers), None)
    if compiler is None:
        print(f"no {' or '.join(compilers)} here: compile {MAIN.name} with {folder}/libnet.a on the device's tool chain")
        return
    program = Path(folder) / "classify"
    command = [compiler, "-O2", str(MAIN), f"-I{folder}", f"{folder}/libnet.a", "-static", "-pthread", "-o", str(program)]
    print(" ".join(command))
    subprocess.run(command, check=True)
    emulator = shutil.which(f"qemu-{cpu.architecture}-static") or shutil.which(f"qemu-{cpu.architecture}")
    if not at_home and emulator is None:
        print(f"this machine does not run {cpu.name} programs: copy {program} and {image} to the device")
        return
    start = [] if at_home or emulator is None else [emulator]
    for threads in ("1", "2"):
        subprocess.run([*start, str(program.absolute()), str(image), threads], check=True)
    print(f"the label is {y_test[0]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
