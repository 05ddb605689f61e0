"""Where the lines of a chat come from: a keyboard with history, or a pipe."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from omnidrop_cli.chat.slash import NAMES
from omnidrop_cli.terminal.console import is_terminal

PROMPT = "> "
#: Lines of history that are read, and twice as many before the file is cut back to them.
LINES = 1000


class Source(Protocol):
    """Where lines come from."""

    def read(self) -> str:
        """Return the next line.

        Raises
        ------
        EOFError
            If there is none.
        KeyboardInterrupt
            If Ctrl-C is pressed.
        """
        ...


class Pipe:
    """Lines of a stdin that is no terminal."""

    def read(self) -> str:
        """Return the next line; see `Source`."""
        line = sys.stdin.buffer.readline()
        if not line:
            raise EOFError
        return line.decode("utf-8", "replace")


class Keyboard:
    """Lines typed at a prompt, with the arrows for earlier ones where readline is installed.

    Parameters
    ----------
    history : Path or None
        File of the lines typed in earlier sessions; None to remember none.
    methods : callable
        Returns the names that the tab key completes after /method.
    """

    def __init__(self, history: Path | None, methods: Callable[[], list[str]] = list) -> None:
        self._history, self._methods = history, methods
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="replace")  # what is not UTF-8 must not end the session
        self._editing = is_terminal(sys.stdin) and is_terminal(sys.stdout)
        self._readline = _readline() if self._editing else None
        if self._readline is not None:
            self._begin(self._readline)

    def read(self) -> str:
        """Return the next line; see `Source`."""
        if self._editing:
            line = input(PROMPT)
        else:  # input() would write the prompt among the answers
            sys.stderr.write(PROMPT)
            sys.stderr.flush()
            line = sys.stdin.readline()
            if not line:
                raise EOFError
            line = line.rstrip("\n")
        if line.strip():
            self._remember(line.strip())
        return line

    def _begin(self, readline: Any) -> None:
        if self._history is not None:
            for line in _lines(self._history)[-LINES:]:
                readline.add_history(line)
        readline.set_completer_delims(" ")
        readline.set_completer(self._complete)
        bsd = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if bsd else "tab: complete")

    def _complete(self, text: str, state: int) -> str | None:
        """Return the match number `state` of the word that the tab key was pressed at."""
        assert self._readline is not None
        words = self._readline.get_line_buffer()[: self._readline.get_begidx()].split()
        if not words:
            found = [f"/{name} " for name in NAMES if f"/{name}".startswith(text)]
        elif words == ["/method"]:
            found = [f"{name} " for name in self._methods() if name.startswith(text)]
        elif words[0] in ("/open", "/save"):
            found = [f"{p}/" if os.path.isdir(p) else p for p in glob.glob(glob.escape(text) + "*")]
        else:
            found = []
        return sorted(found)[state] if state < len(found) else None

    def _remember(self, line: str) -> None:
        """Append a line to the file, which only its owner can read; a full disk does no harm."""
        if self._history is None:
            return
        with suppress(OSError):
            self._history.parent.mkdir(parents=True, exist_ok=True)
            kept = _lines(self._history)
            if len(kept) >= 2 * LINES:
                _write(self._history, [*kept[-LINES:], line], os.O_TRUNC)
            elif not kept or kept[-1] != line:
                _write(self._history, [line], os.O_APPEND)


def _readline() -> Any:
    """Return Python's readline; None where it is not installed, as on Windows."""
    try:
        import readline
    except ImportError:
        return None
    return readline


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []


def _write(path: Path, lines: list[str], how: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as stream:
        os.chmod(path, 0o600)
        stream.write("".join(f"{line}\n" for line in lines))


__all__ = ["Keyboard", "Pipe", "Source"]
