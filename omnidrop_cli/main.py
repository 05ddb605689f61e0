"""The console entry point: runs the application, turns whatever happens into an exit code.

Nothing is imported before it is needed, so that `omnidrop --version` answers quickly and Ctrl-C is
quiet from the start. A reader that closes the pipe (`omnidrop ask … | head -1`) has what
it wanted: the exit code is 0.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

#: Set by a shell that asks what could be typed next; holds its name and "source" or "complete".
COMPLETION = "_OMNIDROP_COMPLETE"


#: Decides whether a command runs in this process.
Admit = Callable[[str, dict[str, Any]], None]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process with its exit code.

    Parameters
    ----------
    arguments : list of str, optional
        What was typed after `omnidrop`; the process's own arguments by default.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words in (["--version"], ["-V"]):
            from omnidrop import __version__

            print(f"omnidrop {__version__}", flush=True)
            sys.exit(0)
        from omnidrop_cli.interrupts import watch_interrupts

        watch_interrupts()
        from omnidrop_cli.serving import client

        served = client.run(words)
        if served is None:
            from omnidrop_cli.libraries import bound_spinning

            bound_spinning()
        code = run(words) if served is None else served
    except KeyboardInterrupt:
        code = 130
    if code in (130, 143):
        _leave(code)
    sys.exit(code)


def run(words: list[str], admit: Admit | None = None) -> int:
    """Run the application on these arguments and return the exit code.

    Parameters
    ----------
    words : list of str
        What was typed after `omnidrop`.
    admit : callable, optional
        Called with the name of the command and the values of its options before it runs; what it
        raises ends the call.
    """
    from omnidrop_cli.terminal import spinner

    if COMPLETION not in os.environ:
        spinner.start(words)
    try:
        return _run(words, admit)
    except KeyboardInterrupt:
        return 130
    finally:
        spinner.stop()


def _run(words: list[str], admit: Admit | None) -> int:
    """Run the application, with a spinner that may turn."""
    from omnidrop_cli.errors import report, watch_debug
    from omnidrop_cli.interrupts import INTERRUPTED, forget_interrupts, interrupted
    from omnidrop_cli.terminal import spinner

    watch_debug(words)
    forget_interrupts()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _invoke(words, admit)
        spinner.stop()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python flushes stdout again at exit; without this it would complain then.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return 0
    except SystemExit as leave:  # typer's own, after completion was shown or installed
        return leave.code if isinstance(leave.code, int) else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as problem:
        return INTERRUPTED if interrupted() else report(problem)


def _invoke(words: list[str], admit: Admit | None) -> int:
    import typer

    from omnidrop.errors import UsageError
    from omnidrop_cli.errors import complain

    # typer 0.25 and later carries its own click, and of the exceptions it raises exports this one.
    usage_error: type[Exception] = typer.BadParameter.__mro__[1]
    click_error: type[Exception] = typer.BadParameter.__mro__[2]
    # Not `app()`: it handles a closed pipe, an EOFError and Ctrl-C in its own way.
    # A process that runs many commands makes the group once; it depends on the shell a little.
    group = _group() if admit is None else _kept_group()
    try:
        if COMPLETION in os.environ:
            group._main_shell_completion({}, "omnidrop")
        with group.make_context("omnidrop", list(words), obj=admit) as context:
            result = group.invoke(context)
    except typer.Exit as leave:
        return leave.exit_code
    except usage_error as problem:
        where = getattr(problem, "ctx", None)
        # An option without its value is refused before there is a context.
        known = words and words[0] in getattr(group, "commands", {})
        path = f"omnidrop {words[0]}" if known else "omnidrop"
        path = path if where is None else where.command_path
        text = problem.format_message().rstrip(".")  # type: ignore[attr-defined]
        text = text.replace("Value error, ", "")  # pydantic's, under typer
        stop = "" if text.endswith(("?", "!")) else "."
        from omnidrop_cli.config import source_note

        note = source_note(where, text) if where is not None else ""
        complain(f"{text}{stop} {note} Type '{path} --help' for help.")
        return UsageError.exit_code
    except click_error as problem:
        complain(problem.format_message())  # type: ignore[attr-defined]
        return UsageError.exit_code
    return result if isinstance(result, int) else 0


def _group() -> Any:
    """Return the commands."""
    import typer.main

    from omnidrop_cli.app import app

    return typer.main.get_command(app)


_kept_group = cache(_group)


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
