"""Aligned columns as plain text, the last one wrapped to the terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

from omnidrop_cli.terminal.console import is_terminal

UNLIMITED = 10_000


def width() -> int:
    """Return the columns of stdout's terminal; unlimited in a pipe, so that lines stay whole."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else UNLIMITED


def table(rows: Sequence[Sequence[str]], indent: int = 0, room: int | None = None) -> str:
    """Return rows as aligned columns, two spaces apart.

    Parameters
    ----------
    rows : sequence of sequence of str
        All of the same length; the last column may be long.
    indent : int
        Spaces before every line.
    room : int, optional
        Columns of the screen; the terminal's by default.
    """
    if not rows:
        return ""
    room = width() if room is None else room
    columns = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        head = " " * indent
        head += "".join(c.ljust(w) + "  " for c, w in zip(row[:-1], columns, strict=True))
        last = textwrap.wrap(row[-1], max(room - len(head), 12), break_on_hyphens=False) or [""]
        lines.append((head + last[0]).rstrip())
        lines += [" " * len(head) + more for more in last[1:]]
    return "\n".join(lines)
