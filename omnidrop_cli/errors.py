"""Errors, signals and closed pipes: turns whatever happens into one paragraph and an exit code.

A reader that closes the pipe (`omnidrop ask … | head -1`) has what it wanted: the exit code is 0.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from contextlib import suppress

from omnidrop.errors import OmniDropError, printable

INTERRUPTED = 130
BUG = (
    "This is a bug in omnidrop, not a mistake of yours. "
    "Run the same command with --debug to see the traceback, and report it."
)


def plain_terminal() -> bool:
    """Return whether stderr wants no colour: not a terminal, NO_COLOR, or a dumb one."""
    return (
        not is_terminal(sys.stderr)
        or bool(os.environ.get("NO_COLOR"))
        or os.environ.get("TERM") in ("dumb", "unknown")
    )


def is_terminal(stream: object) -> bool:
    """Return whether a stream is a terminal; False for a closed or replaced one."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False


def complain(paragraph: str, label: str = "error") -> None:
    """Write `omnidrop: error: …` to stderr, wrapped to the terminal if it is one."""
    text = printable(" ".join(paragraph.split()))
    line = f"omnidrop: {label}: {text}"
    if is_terminal(sys.stderr):
        width = max(shutil.get_terminal_size().columns, 20)
        line = textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
    if not plain_terminal():
        colour = "31" if label == "error" else "33"
        line = line.replace(f"{label}:", f"\x1b[1;{colour}m{label}:\x1b[0m", 1)
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def describe(problem: BaseException) -> tuple[str, int]:
    """Return what to say about an exception, and the exit code it stands for."""
    if isinstance(problem, OmniDropError):
        return problem.paragraph(), problem.exit_code
    if isinstance(problem, MemoryError):
        return "Not enough memory. Lower --max-pixels, --fps or --budget, or use --4bit.", 5
    kind, said = type(problem).__name__, str(problem)
    return (f"{kind}: {said.rstrip(chr(46))}. {BUG}" if said else f"{kind}. {BUG}"), 1


def report(problem: BaseException) -> int:
    """Say what went wrong on stderr; return the exit code."""
    if debugging():
        import traceback

        traceback.print_exception(problem, file=sys.stderr)
    text, code = describe(problem)
    complain(text)
    return code


def debugging(words: list[str] | None = None) -> bool:
    """Return whether tracebacks are wanted; `words` are what was typed, if not sys.argv."""
    typed = _typed if words is None else words
    if "--" in typed:
        typed = typed[: typed.index("--")]
    return "--debug" in typed or os.environ.get("OMNIDROP_DEBUG", "") not in ("", "0")


_typed: list[str] = []
_interrupts: list[int] = []


def _interrupt(number: int, frame: object) -> None:
    """Interrupt politely the first time, at once the second.

    Libraries swallow a KeyboardInterrupt here and there (while they are imported, above all), so
    it is also written down; whatever they raise instead then counts as one.
    """
    if _interrupts:
        os._exit(INTERRUPTED)
    _interrupts.append(number)
    raise KeyboardInterrupt


def stop_if_interrupted() -> None:
    """Raise the KeyboardInterrupt that a library has turned into something else."""
    if _interrupts:
        raise KeyboardInterrupt


def watch_interrupts() -> None:
    """Handle Ctrl-C from now on; in a thread or under a handler of someone else's, do nothing."""
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with suppress(ValueError):
            signal.signal(signal.SIGINT, _interrupt)


def run(words: list[str]) -> int:
    """Run the application on the words typed and return the exit code."""
    _typed[:] = words
    _interrupts.clear()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _invoke(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python flushes stdout again at exit; without this it would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as problem:
        return INTERRUPTED if _interrupts else report(problem)


def _invoke(words: list[str]) -> int:
    import typer
    import typer.main

    from omnidrop_cli.app import app

    # typer exports none of the exceptions it raises but this one; it may carry its own click.
    usage_error: type[Exception] = typer.BadParameter.__mro__[1]
    click_error: type[Exception] = typer.BadParameter.__mro__[2]
    # Not `app()`: it takes a closed pipe, an EOFError and Ctrl-C for things of its own.
    group = typer.main.get_command(app)
    try:
        with group.make_context("omnidrop", list(words)) as context:
            result = group.invoke(context)
    except typer.Exit as leave:
        return leave.exit_code
    except usage_error as problem:
        where = getattr(problem, "ctx", None)
        path = where.command_path if where is not None else "omnidrop"
        said = problem.format_message().rstrip(".")  # type: ignore[attr-defined]
        said = said.replace("Value error, ", "")  # pydantic's, under typer
        stop = "" if said.endswith(("?", "!")) else "."
        complain(f"{said}{stop} Type '{path} --help' for help.")
        return 2
    except click_error as problem:
        complain(problem.format_message())  # type: ignore[attr-defined]
        return 2
    return result if isinstance(result, int) else 0
