"""The console entry point.

It exists apart from the commands so that `omnidrop --version` answers before anything is imported,
and so that Ctrl-C is quiet from the first moment on.
"""

from __future__ import annotations

import sys


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
        from omnidrop_cli.guard import run

        code = run(words)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
