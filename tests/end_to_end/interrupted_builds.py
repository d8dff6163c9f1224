"""Runs ``qcompiler`` in children that get a signal after a while: ``python -m tests.end_to_end.interrupted_builds``.

Reads lines of JSON, ``[arguments, signal, seconds]``, and answers each with ``[exit code, seconds]``. A child is forked when
everything is imported, so that the seconds are those of the build.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import time
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def child(arguments: list[str]) -> None:
    """The command line, with nothing printed."""
    from qcompiler.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    sys.argv = ["qcompiler", *arguments]
    code = 99
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        code = 130
    finally:
        atexit._run_exitfuncs()  # as every process that is not killed; the rest of an interpreter's end is not safe after a fork
        os._exit(code)


def main() -> None:
    """Answer line by line."""
    import qcompiler.api
    import qcompiler.backend.artifact
    import qcompiler.backend.library
    import qcompiler.backend.lower
    import qcompiler.backend.tir
    import qcompiler.cli  # noqa: F401

    for line in sys.stdin:
        arguments, number, seconds = json.loads(line)
        begin = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # what runs at a fork ignores exceptions, Ctrl-C too
        process = os.fork()
        if not process:
            child(arguments)
        code = None
        while code is None:
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
            elif number and time.monotonic() - begin >= seconds:
                os.kill(process, number)
                number = 0
            time.sleep(0.002)
        print(json.dumps([code, time.monotonic() - begin]), flush=True)


if __name__ == "__main__":
    main()
