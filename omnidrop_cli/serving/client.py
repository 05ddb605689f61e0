"""Hands a command to a warm model, if one is served and can take it.

Nothing but the standard library is imported here: finding out that there is no warm model must cost
no time, and where there is one this process only waits. The command writes to this process's own
stdout and stderr and reads its stdin, so that only its end and its signals pass through here.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from contextlib import suppress
from types import FrameType
from typing import Any

from omnidrop_cli.serving import protocol

#: Commands that load no model or write no answer, which a warm model cannot run; `help` is none.
OTHERS = frozenset(
    (
        "calibrate",
        "chunks",
        "config",
        "doctor",
        "estimate",
        "eval",
        "help",
        "models",
        "profile",
        "report",
        "serve",
        "train-a2v",
        "train-selector",
    )
)
#: Words that are answered without a model, or that ask for this process.
OWN_WORDS = frozenset(
    [
        "-h",
        "--help",
        "--help-all",
        "-V",
        "--version",
        "--debug",
        "--no-serve",
        "--show-completion",
        "--install-completion",
    ]
)
#: Variables that ask for this process, as options do.
OWN_VARIABLES = ("OMNIDROP_NO_SERVE", "OMNIDROP_DEBUG")
COMPLETION = "_OMNIDROP_COMPLETE"

#: Seconds in which the host must answer, which it does at once; a busy machine may take a while.
ANSWER_WITHIN = 10.0
#: Seconds to wait for the command to pause before this process does.
PAUSE_WITHIN = 1.0
#: Ctrl-C after which this process leaves whatever the host does: a chat takes two without ending.
MOST_INTERRUPTS = 4
INTERRUPTED, TERMINATED, ENVIRONMENT = 130, 143, 4

_why_not = ""


def why_not() -> str:
    """Return why the warm model did not take this process's command; "" if there is none."""
    return _why_not


def run(words: list[str]) -> int | None:
    """Run a command on the warm model; None if this process is to run it itself.

    Parameters
    ----------
    words : list of str
        What was typed after `omnidrop`.

    Returns
    -------
    int or None
        The exit code.
    """
    global _why_not
    _why_not = ""
    if not may_be_served(words):
        return None
    path = protocol.socket_path()
    if not os.path.exists(path):
        return None
    try:
        link = protocol.connect(path, ANSWER_WITHIN)
    except OSError:  # its process was killed, or it is not ours
        return None
    with link:
        return Call(link, words).run()


def may_be_served(words: list[str]) -> bool:
    """Return whether a command could be one that a warm model runs.

    Whether it is one is for the host to say: that takes the whole command line.
    """
    typed = words[: words.index("--")] if "--" in words else words
    return (
        protocol.is_supported()
        and bool(words)
        and words[0] not in OTHERS
        and not OWN_WORDS & set(typed)
        and not any(map(_is_set, OWN_VARIABLES))
        and COMPLETION not in os.environ
        and None not in (sys.stdin, sys.stdout, sys.stderr)
    )


def _is_set(variable: str) -> bool:
    """Return whether a variable switches its option on, as the option itself reads it."""
    text = os.environ.get(variable, "").strip().lower()
    return text not in ("", "0", "false", "f", "no", "n", "off")


class Call:
    """One command that the host runs for this process."""

    def __init__(self, link: socket.socket, words: list[str]) -> None:
        self._link, self._words = link, words
        self._interrupts = 0
        self._terminated = False
        self._pausing = False
        self._waits: Any = None

    def run(self) -> int | None:
        """Send the command and see it through; None if the host does not take it."""
        try:
            self._send_command()
            message = protocol.receive(self._link)
        except OSError:
            return None
        if message is None:
            return None
        before = self._watch_signals()
        try:
            self._link.settimeout(None)
            return self._follow(message)
        except KeyboardInterrupt:
            return INTERRUPTED
        finally:
            self._stop_waiting()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _send_command(self) -> None:
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            protocol.send(self._link, hello(self._words), (0, 1, 2, folder))
        finally:
            os.close(folder)

    def _follow(self, message: dict[str, Any] | None) -> int | None:
        """Do what the host says until the command has ended."""
        started = False
        while message is not None:
            said = message.get("say")
            if said == "wait":
                self._wait(str(message.get("command", "")))
            elif said == "refused":
                global _why_not
                _why_not = str(message.get("why", ""))
                return INTERRUPTED if self._interrupts else None
            elif said == "run":
                self._stop_waiting()
                if self._interrupts:
                    return INTERRUPTED
                started = True
                self._say({"say": "go"})
            elif said == "paused":
                self._pause()
            elif said == "ended":
                return TERMINATED if self._terminated else int(message["code"])
            elif said == "stopped":
                return self._lost("omnidrop serve was stopped")
            message = self._next()
        if not started:
            return INTERRUPTED if self._interrupts else None
        return self._lost("omnidrop serve ended")

    def _next(self) -> dict[str, Any] | None:
        """Return the next message; None if the host is gone."""
        try:
            return protocol.receive(self._link)
        except (OSError, ValueError):
            return None

    def _say(self, message: dict[str, Any]) -> None:
        with suppress(OSError):
            protocol.send(self._link, message)

    # While others have their turn

    def _wait(self, what: str) -> None:
        from omnidrop_cli.terminal import spinner

        if self._waits is None:
            spinner.start(self._words)
            self._waits = spinner
        who = f", which omnidrop {what} uses" if what else ""
        spinner.say(f"waiting for the warm model{who}")

    def _stop_waiting(self) -> None:
        if self._waits is not None:
            self._waits.stop()
            self._waits = None

    # When the host is lost

    def _lost(self, what: str) -> int | None:
        """Say that the host ended in the middle of the command; a batch goes on by itself."""
        self._stop_waiting()
        if self._interrupts:
            return INTERRUPTED
        if self._words[0] == "batch" and not self._to_stdout():
            self._complain(f"{what}; going on without it.", "notice")
            return None
        self._complain(
            f"{what} in the middle of this command. Run it again, or with --no-serve.", "error"
        )
        return ENVIRONMENT

    def _to_stdout(self) -> bool:
        """Return whether the answers of a batch may be on stdout, where none may stand twice."""
        return any(word in ("-", "-o-", "--out=-", "/dev/stdout") for word in self._words) or (
            os.environ.get("OMNIDROP_OUT") in ("-", "/dev/stdout")
        )

    def _complain(self, text: str, label: str) -> None:
        from omnidrop_cli.errors import complain

        with suppress(OSError):  # it may have ended in the middle of a line
            if os.isatty(2):
                os.write(2, b"\r\x1b[K")
        complain(text, label)

    # Signals

    def _watch_signals(self) -> dict[int, Any]:
        """Pass signals on from now on; return the handlers from before."""
        handlers: dict[int, Any] = {signal.SIGINT: self._interrupt}
        if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
            handlers[signal.SIGTSTP] = self._stop
        handlers[signal.SIGWINCH] = self._resize
        if self._words[0] == "batch":  # which says what it has, as it does by itself
            handlers[signal.SIGTERM] = self._terminate
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            del handlers[signal.SIGINT]
        return {number: signal.signal(number, handler) for number, handler in handlers.items()}

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Pass Ctrl-C on; the command decides what becomes of it."""
        self._interrupts += 1
        if self._waits is not None:
            raise KeyboardInterrupt  # not begun yet
        if self._interrupts >= MOST_INTERRUPTS:
            os._exit(INTERRUPTED)
        self._say({"say": "interrupt"})

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        """Pass SIGTERM on as Ctrl-C; the exit code tells the difference."""
        if self._terminated or self._waits is not None:
            os._exit(TERMINATED)
        self._terminated = True
        self._interrupts += 1
        self._say({"say": "interrupt"})

    def _resize(self, number: int, frame: FrameType | None) -> None:
        self._say({"say": "resized"})

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z: the command pauses first, so that it leaves the terminal to the shell."""
        self._pausing = True
        self._say({"say": "pause"})
        if self._waits is not None or not select.select([self._link], [], [], PAUSE_WITHIN)[0]:
            self._pause()

    def _pause(self) -> None:
        """Stop this process until the shell continues it."""
        if not self._pausing:
            return
        self._pausing = False
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stop)
        self._say({"say": "continue"})


def hello(words: list[str]) -> dict[str, Any]:
    """Return what the host must know to run a command as this process would."""
    import omnidrop

    root = os.stat("/")
    mask = os.umask(0o077)
    os.umask(mask)
    return {
        "say": "run",
        "protocol": protocol.PROTOCOL,
        "version": omnidrop.__version__,
        "package": os.path.dirname(omnidrop.__file__),
        "python": sys.version,
        "file_names": sys.getfilesystemencoding(),
        "root": [root.st_dev, root.st_ino],
        "words": words,
        "environment": dict(os.environ),
        "mask": mask,
        "streams": [_stream(stream) for stream in (sys.stdin, sys.stdout, sys.stderr)],
    }


def _stream(stream: Any) -> list[Any]:
    """Return how a stream of this process turns text into bytes, and when it writes them."""
    return [stream.encoding, stream.errors, stream.line_buffering, stream.write_through]
