"""A sign of life on a terminal from the first moment, while torch and a model are being loaded.

It starts before anything heavy is imported and without rich, and is gone before anything else is
written: while it turns, stdout and stderr take it off the screen at their first write.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TextIO

from omnidrop_cli.terminal.console import is_terminal

#: Seconds before it appears: a call that is refused at once shows none.
PATIENCE = 0.1
INTERVAL = 0.1
FRAMES, PLAIN_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "-\\|/"
#: Words after which nothing is loaded, and commands that load nothing.
QUICK_WORDS = frozenset(("-h", "--help", "--help-all", "-V", "--version", "--quiet"))
QUICK_COMMANDS = frozenset(("models", "config", "help"))

_running: Spinner | None = None
#: Watched streams live on: CPython's `print` (3.11) holds no reference to sys.stdout while it
#: writes, and the stream is put back during the first write.
_kept: list[_Watched] = []


class Spinner:
    """One line on stderr that turns until it is stopped."""

    def __init__(self, text: str = "starting") -> None:
        self._text = text
        self._stream = sys.stderr
        self._streams = sys.stdout, sys.stderr
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._is_drawn = False
        self._frames = FRAMES if _is_utf(self._stream) else PLAIN_FRAMES
        self._thread = threading.Thread(target=self._turn, daemon=True, name="spinner")

    def start(self) -> None:
        """Turn from now on."""
        watched = [_Watched(stream, self) for stream in self._streams]
        _kept.extend(watched)
        sys.stdout, sys.stderr = watched
        self._thread.start()

    def say(self, text: str) -> None:
        """Show another text."""
        self._text = text

    @property
    def is_stopped(self) -> bool:
        """Whether it is off the screen for good."""
        return self._stopped.is_set()

    def print_above(self, line: str) -> None:
        """Write a line to stderr and go on turning under it."""
        with self._lock:
            self._erase()
            self._stream.write(f"{line}\n")
            self._stream.flush()

    def _erase(self) -> None:
        if self._is_drawn:
            self._is_drawn = False
            with suppress(OSError, ValueError):
                self._stream.write("\r\x1b[K")
                self._stream.flush()

    def stop(self) -> None:
        """Take the line off the screen, for good, and give the streams back."""
        with self._lock:
            if self._stopped.is_set():
                return
            self._stopped.set()
            self._erase()
            for name, stream in zip(("stdout", "stderr"), self._streams, strict=True):
                held = getattr(sys, name)
                if isinstance(held, _Watched) and held.spinner is self:
                    setattr(sys, name, stream)

    def _turn(self) -> None:
        import shutil

        if self._stopped.wait(PATIENCE):
            return
        turn = 0
        while True:
            with self._lock:
                if self._stopped.is_set():
                    return
                room = max(shutil.get_terminal_size().columns - 3, 1)
                line = f"{self._frames[turn % len(self._frames)]} {self._text[:room]}"
                try:
                    self._stream.write(f"\r{line}\x1b[K")
                    self._stream.flush()
                except (OSError, ValueError):
                    return
                self._is_drawn = True
            turn += 1
            if self._stopped.wait(INTERVAL):
                return


class _Watched:
    """A stream that stops the spinner when something is written to it."""

    def __init__(self, stream: TextIO, spinner: Spinner) -> None:
        self._stream, self.spinner = stream, spinner

    def write(self, text: str) -> int:
        if text:
            self.spinner.stop()
        return self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        self.spinner.stop()
        self._stream.writelines(lines)

    @property
    def buffer(self) -> Any:
        self.spinner.stop()
        return self._stream.buffer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_utf(stream: Any) -> bool:
    return "utf" in (getattr(stream, "encoding", None) or "").lower()


def start(words: Sequence[str]) -> None:
    """Start a spinner for a call that loads something: on a terminal, unless it is to be quiet.

    Parameters
    ----------
    words : sequence of str
        What was typed after `omnidrop`.
    """
    global _running
    typed = words[: words.index("--")] if "--" in words else words
    if (
        not typed
        or typed[0] in QUICK_COMMANDS
        or QUICK_WORDS & set(typed)
        or os.environ.get("OMNIDROP_QUIET", "") not in ("", "0")
        or os.environ.get("TERM") in ("dumb", "unknown")
        or not is_terminal(sys.stderr)
    ):
        return
    _running = Spinner()
    _running.start()


def say(text: str) -> None:
    """Show what is being done, if a spinner turns."""
    if _running is not None:
        _running.say(text)


def print_above(line: str) -> None:
    """Write a line to stderr; a spinner that turns goes on under it."""
    if _running is not None and not _running.is_stopped:
        _running.print_above(line)
    else:
        print(line, file=sys.stderr, flush=True)


def forget() -> None:
    """Let go of the streams of a command that has ended, in a process that outlives it."""
    stop()
    _kept.clear()


def stop() -> None:
    """Take the spinner off the screen, if one turns."""
    global _running
    if _running is not None:
        _running.stop()
        _running = None
