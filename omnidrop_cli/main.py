"""The console entry point.

It exists apart from the commands so that `omnidrop --version` answers before anything is imported,
and so that Ctrl-C is quiet from the first moment on.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code.

    Parameters
    ----------
    arguments : list of str, optional
        What was typed after `omnidrop`; the process's own arguments by default.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words == ["--version"]:
            from omnidrop import __version__

            print(f"omnidrop {__version__}", flush=True)
            sys.exit(0)
        from omnidrop_cli.errors import run, watch_interrupts

        watch_interrupts()
        code = run(words)
    except KeyboardInterrupt:
        code = 130
    if code == 130:
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> None:
    """End the process now.

    The usual way out unloads libraries for a second or more, and where a KeyboardInterrupt has
    passed through one of them on its way, Python ends by a signal instead of with the exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
