"""Ctrl-C: handled from the start, and not lost where a library swallows it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

INTERRUPTED, TERMINATED = 130, 143

_received: list[int] = []
_second: list[Callable[[], None]] = []
_at_end: list[Callable[[], None]] = []


def watch_interrupts() -> None:
    """Handle Ctrl-C from now on; in a thread or under another program's handler, do nothing."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with suppress(ValueError):
            signal.signal(signal.SIGINT, lambda number, frame: interrupt())


def interrupt() -> None:
    """Raise KeyboardInterrupt at the first Ctrl-C, end the process at the second (or third).

    Libraries swallow a KeyboardInterrupt here and there, above all while they are imported. So it
    is also written down: whatever they raise in its place counts as an interrupt.
    """
    if len(_received) > len(_second):
        if not _at_end:
            os._exit(INTERRUPTED)
        _at_end[-1]()
        raise KeyboardInterrupt
    _received.append(signal.SIGINT)
    if len(_received) == 1:
        raise KeyboardInterrupt
    _second[-1]()


@contextmanager
def not_ending(instead: Callable[[], None]) -> Iterator[None]:
    """Call `instead` where the process would be ended, and raise KeyboardInterrupt once more: for a
    process that outlives its commands.
    """
    _at_end.append(instead)
    try:
        yield
    finally:
        _at_end.pop()


@contextmanager
def keep_session(second: Callable[[], None]) -> Iterator[None]:
    """Call `second` at the second Ctrl-C, and end the process at the third: for a session that a
    hasty second Ctrl-C must not end.
    """
    _second.append(second)
    try:
        yield
    finally:
        _second.pop()


def interrupted() -> bool:
    """Return whether Ctrl-C was pressed since `forget_interrupts`."""
    return bool(_received)


@contextmanager
def telling(what_was_kept: Callable[[], None]) -> Iterator[None]:
    """Call `what_was_kept` if Ctrl-C ends the block, whatever a library has made of it."""
    try:
        yield
    except KeyboardInterrupt:
        what_was_kept()
        raise
    except Exception:
        if interrupted():
            what_was_kept()
        raise


@contextmanager
def terminating() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does; a second one ends the process at once."""

    def end(number: int, frame: object) -> None:
        if signal.SIGTERM in _received:
            os._exit(TERMINATED)
        _received.append(signal.SIGTERM)
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # in a thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def terminated() -> bool:
    """Return whether SIGTERM has come since `forget_interrupts`."""
    return signal.SIGTERM in _received


def forget_interrupts() -> None:
    """Begin anew: several command lines can run in one process."""
    _received.clear()


def stop_if_interrupted() -> None:
    """Raise the KeyboardInterrupt that a library has turned into something else."""
    if _received:
        raise KeyboardInterrupt
