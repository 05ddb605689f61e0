"""Terminals: whether a stream is one, and the rich consoles that draw on it or for files."""

from __future__ import annotations

import io
import os
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

SAVED_WIDTH = 150
NARROWEST = 40

#: Shown on a terminal in place of an answer without a word; a pipe gets what the model said.
NOTHING = "(nothing)"

#: For streams that are not UTF-8; every replacement is as wide as what it replaces.
ASCII = str.maketrans(
    "█▓▒░▉▊▋▌▍▎▏▁▂▃▄▅▆▇─━·→×–—…╵■“”",
    '#%+-###=---.,:;+*%--.>x--~\'#""',
)


def is_terminal(stream: object) -> bool:
    """Return whether a stream is a terminal; False for a closed or replaced one."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False


def plain_terminal() -> bool:
    """Return whether stderr wants no colour: not a terminal, NO_COLOR, or a dumb one."""
    return (
        not is_terminal(sys.stderr)
        or bool(os.environ.get("NO_COLOR"))
        or os.environ.get("TERM") in ("dumb", "unknown")
    )


def for_terminal(text: str) -> str:
    """Return text whose control characters are escaped, since they could steer the terminal.

    Line breaks, tabs, spaces of all kinds and the joiners that some scripts need stay.
    """
    return "".join(c if _harmless(c) else c.encode("unicode_escape").decode() for c in text)


def _harmless(character: str) -> bool:
    return (
        character.isprintable()
        or character in "\n\t\u200c\u200d"
        or unicodedata.category(character) == "Zs"
    )


class AsciiStream:
    """A stream that replaces glyphs which its encoding lacks by ASCII ones."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(text.translate(ASCII))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def terminal(stream: Any = None) -> Console:
    """Return a console on stderr, or another stream: as wide as the terminal, in its colours."""
    from rich.console import Console

    stream = sys.stderr if stream is None else stream
    if "utf" not in (getattr(stream, "encoding", None) or "utf").lower():
        stream = AsciiStream(stream)
    dumb = os.environ.get("TERM") in ("dumb", "unknown")
    width = None if is_terminal(stream) or "COLUMNS" in os.environ else 100
    console = Console(
        file=stream,
        width=width,
        no_color=True if dumb or os.environ.get("NO_COLOR") else None,
        color_system=None if dumb or os.environ.get("NO_COLOR") else "auto",
        highlight=False,
        markup=False,
        emoji=False,
    )
    if console.width < NARROWEST:
        console.width = NARROWEST
    return console


def recorder(colour: bool, width: int = SAVED_WIDTH) -> Console:
    """Return a console of a fixed width that writes nowhere, to render lines for files."""
    from rich.console import Console

    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=True,
        no_color=not colour,
        color_system="truecolor" if colour else None,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
