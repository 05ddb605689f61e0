"""What a line of a chat is: a question, or a command that begins with a slash."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from omnidrop.errors import UsageError, printable
from omnidrop_cli.options.common import SpanFlags
from omnidrop_cli.options.parsing import SUFFIXES, parse_time, with_suffix

#: Words that end a setting: the whole clip again, no choices.
OFF = ("off", "all", "none", "clear")


@dataclass(frozen=True)
class Slash:
    """A command.

    Attributes
    ----------
    name : str
        Without the slash.
    words : str
        What follows it.
    help : str
    """

    name: str
    words: str
    help: str

    @property
    def usage(self) -> str:
        """The command as it is typed."""
        return f"/{self.name} {self.words}".rstrip()


SLASHES = (
    Slash("at", "START [END]", "ask about a part: /at 0:30 1:00; /at off for the whole clip"),
    Slash("budget", "SHARE", "share of audio and video tokens kept, like 0.2, or auto"),
    Slash("method", "NAME", "which tokens are dropped: omnidrop, uniform, none, …"),
    Slash("choices", "A,B", "answer with one of these from now on; /choices off to end it"),
    Slash("turns", "on|off", "whether a question sees the turns before it"),
    Slash("reset", "", "forget the turns so far"),
    Slash("report", "", "full report of the last answer"),
    Slash("save", "FILE", "write all questions and answers to .json, .html, .svg or .txt"),
    Slash("open", "CLIP", "go on with another clip; its first question sees no earlier turns"),
    Slash("help", "", "this list"),
    Slash("quit", "", "leave, as Ctrl-D does"),
)
NAMES = tuple(slash.name for slash in SLASHES)
_SAME = {"exit": "quit", "q": "quit", "h": "help", "?": "help"}


@dataclass(frozen=True)
class Line:
    """A line that was typed.

    Attributes
    ----------
    command : str or None
        A name in `NAMES`; None for a question.
    text : str
        The question, or what follows the command.
    """

    command: str | None
    text: str


def read_line(typed: str) -> Line | None:
    """Return what a line is; None for an empty one.

    Two slashes begin a question that begins with one.

    Raises
    ------
    UsageError
        If there is no such command.
    """
    typed = typed.strip()
    if not typed:
        return None
    if typed.startswith("//"):
        return Line(None, typed[1:])
    if not typed.startswith("/"):
        return Line(None, typed)
    name, _, rest = typed[1:].partition(" ")
    known = _SAME.get(name.lower(), name.lower())
    if known not in NAMES:
        raise UsageError(f"There is no command /{printable(name)}.", hint=_meant(known))
    return Line(known, rest.strip())


def _meant(name: str) -> str:
    begun = [known for known in NAMES if name and known.startswith(name)]
    near = begun or get_close_matches(name, NAMES, n=2, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join('/' + known for known in near)}?"
    return "/help lists the commands; two slashes begin a question."


def read_span(text: str) -> SpanFlags:
    """Return the part of the clip that `0:30 1:00`, `0:30-1:00`, `0:30` or `off` names.

    Raises
    ------
    UsageError
        If it is no span.
    """
    if text.lower() in OFF:
        return SpanFlags()
    times = [part for part in re.split(r"\s*[-–—]\s*|\s+", text.strip()) if part]
    if len(times) > 2:
        raise UsageError(
            f"/at {printable(text)} is more than a start and an end.",
            hint="Write it like /at 0:30 1:00.",
        )
    return SpanFlags(*map(parse_time, times))


def read_switch(text: str) -> bool:
    """Return True for `on` and False for `off`.

    Raises
    ------
    UsageError
        If it is neither.
    """
    if text.lower() not in ("on", "off"):
        raise UsageError(f"/turns {printable(text)} is neither on nor off.", hint="Type one.")
    return text.lower() == "on"


def read_path(text: str, command: str) -> Path:
    """Return the path that follows a command: as it is, quoted, or with escaped spaces.

    Raises
    ------
    UsageError
        If there is none.
    """
    if not text:
        raise UsageError(f"/{command} needs a file.", hint=f"Type it like /{command} FILE.")
    path = Path(text)
    if not path.exists():
        try:
            words = shlex.split(text, posix=os.name == "posix")
        except ValueError:  # a lone quote is part of the name
            words = []
        if len(words) == 1:
            path = Path(words[0].strip("\"'"))
    return path.expanduser()


def read_target(text: str) -> Path:
    """Return the file that answers are saved to.

    Raises
    ------
    UsageError
        If there is none, or its suffix is none that can be written.
    """
    return with_suffix(read_path(text, "save"), "/save", SUFFIXES)


def as_typed(problem: UsageError) -> UsageError:
    """Return a complaint about an option as one about the command that sets it here."""

    def renamed(text: str | None) -> str | None:
        return text and re.sub(r"--(budget|method|choices)\b", r"/\1", text)

    return UsageError(renamed(problem.what) or "", path=problem.path, hint=renamed(problem.hint))


__all__ = [
    "NAMES",
    "OFF",
    "SLASHES",
    "Line",
    "Slash",
    "as_typed",
    "read_line",
    "read_path",
    "read_span",
    "read_switch",
    "read_target",
]
