"""Errors as a person meets them: one paragraph on stderr and an exit code.

The codes are those of the library's errors (`omnidrop.errors`); `EXIT_CODES` lists all of them.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
import traceback
from contextlib import suppress

from omnidrop.errors import (
    IN_PYTHON,
    BatchError,
    MediaError,
    MemoryShortError,
    ModelError,
    OmniDropError,
    OutOfTimeError,
    OutputError,
    OutsideError,
    UsageError,
    printable,
)
from omnidrop_cli.interrupts import INTERRUPTED, TERMINATED
from omnidrop_cli.terminal import spinner
from omnidrop_cli.terminal.console import is_terminal, plain_terminal

OK, BUG_CODE = 0, 1

#: Every exit code. Those of the library's errors are theirs.
EXIT_CODES = {
    OK: "success",
    BUG_CODE: "a bug in omnidrop",
    UsageError.exit_code: "wrong usage",
    MediaError.exit_code: "media that cannot be read",
    ModelError.exit_code: "model or environment",
    MemoryShortError.exit_code: "out of memory",
    BatchError.exit_code: "part of a batch failed",
    OutputError.exit_code: "output that cannot be written",
    OutOfTimeError.exit_code: "out of time",
    INTERRUPTED: "interrupted",
    TERMINATED: "terminated",
}

BUG = (
    "This is a bug in omnidrop, not a mistake of yours. "
    "Run the same command with --debug to see the traceback, and report it."
)

#: Entry points by which other packages add methods and model families.
ADDED = ("omnidrop.methods", "omnidrop.families")

#: A command that ends a paragraph.
_COMMAND = re.compile(r"(?<=: )(omnidrop|curl|yt-dlp|hf|pip) .+$")

_show_traceback = False


def complain(paragraph: str, label: str = "error") -> None:
    """Write `omnidrop: error: …` to stderr, wrapped to the terminal if it is one."""
    text = printable(" ".join(paragraph.split()))
    line = f"omnidrop: {label}: {text}"
    if is_terminal(sys.stderr):
        width = max(shutil.get_terminal_size().columns, 20)
        line = _wrapped(line, width)
        if label == "interrupted":
            line = f"\n{line}"  # the terminal has written ^C
    if not plain_terminal():
        colour = "31" if label == "error" else "33"
        line = line.replace(f"{label}:", f"\x1b[1;{colour}m{label}:\x1b[0m", 1)
    with suppress(OSError, ValueError):
        if label == "notice":
            spinner.print_above(line)
        else:
            print(line, file=sys.stderr, flush=True)


def _wrapped(line: str, width: int) -> str:
    """Wrap a line; a command at its end stays whole, on a line of its own, to be copied."""
    found = _COMMAND.search(line)
    command = ""
    if found is not None and len(line) > width:
        line, command = line[: found.start()].rstrip(), f"\n  {found[0]}"
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) + command


def describe(problem: BaseException) -> tuple[str, int]:
    """Return an exception's paragraph and exit code."""
    if isinstance(problem, OmniDropError):
        return by_option(problem.paragraph()), problem.exit_code
    if isinstance(problem, MemoryError):
        text = "Not enough memory. Lower --max-pixels, --fps or --budget, or use --4bit."
        return text, MemoryShortError.exit_code
    kind, message = type(problem).__name__, str(problem)
    package = _added_package(problem)
    cause = BUG
    if package is not None:
        cause = (
            f"It arose in {package!r}, an installed package that adds to omnidrop. "
            "Run the same command with --debug to see the traceback."
        )
    text = f"{kind}: {message.rstrip(chr(46))}. {cause}" if message else f"{kind}. {cause}"
    return text, BUG_CODE


def by_option(text: str) -> str:
    """Return a message of the library without what it adds for those who write Python."""
    return text.replace(IN_PYTHON, "")


def _added_package(problem: BaseException) -> str | None:
    """Return the package of a method or a model family that an exception passed through."""
    from importlib.metadata import entry_points  # not needed unless something fails

    points = [point for group in ADDED for point in entry_points(group=group)]
    added = {point.module.partition(".")[0] for point in points} - {"omnidrop"}
    frames = [frame for frame, _ in traceback.walk_tb(problem.__traceback__)]
    names = [str(frame.f_globals.get("__name__")).partition(".")[0] for frame in frames]
    return next((name for name in reversed(names) if name in added), None)


def report(problem: BaseException) -> int:
    """Write an exception's paragraph to stderr; return its exit code."""
    if debugging():
        traceback.print_exception(problem, file=sys.stderr)
    text, code = describe(problem)
    complain(text)
    if isinstance(problem, OutsideError) and problem.command is not None:
        # On a line of its own and not wrapped, so that it can be copied.
        with suppress(OSError, ValueError):
            print(f"  {problem.command}", file=sys.stderr, flush=True)
    return code


def batch_code(failed: bool | int) -> int:
    """Return the exit code of a command over many items: 6 if any failed, else 0."""
    return BatchError.exit_code if failed else OK


def watch_debug(words: list[str]) -> None:
    """Show tracebacks from now on if --debug is among the arguments, or OMNIDROP_DEBUG is set."""
    global _show_traceback
    typed = words[: words.index("--")] if "--" in words else words
    _show_traceback = "--debug" in typed or os.environ.get("OMNIDROP_DEBUG", "") not in ("", "0")


def debugging() -> bool:
    """Return whether tracebacks are shown."""
    return _show_traceback
