"""A limit of time for each row.

In the main thread of a process on Unix a timer of the system interrupts whatever Python does, also
while it waits for a thread that reads the clip. What it cannot interrupt is a call of a native
library that does not return; so `omnidrop.batch.workers` answers rows in a process of their own,
and ends that process where a row does not end by itself within `GRACE`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from omnidrop.errors import OutOfTimeError
from omnidrop.format import rounded_duration

#: Seconds after which a process that did not end its row by itself is ended.
GRACE = 5.0
#: Seconds between two interrupts, should a library have swallowed the first.
_AGAIN = 1.0


class TimeIsUp(BaseException):
    """Raised where a row is; no `except Exception` of a library takes it for something else."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise `TimeIsUp` in the block after so many seconds.

    Parameters
    ----------
    seconds : float or None
        None for no limit; nor is there one outside of the main thread, or on Windows.
    """
    if seconds is None or not _can_interrupt():
        yield
        return
    active = [True]

    def ring(number: int, frame: object) -> None:
        if active[0]:
            raise TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        yield
    finally:
        active[0] = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def out_of_time(seconds: float | None, *, read: bool) -> OutOfTimeError:
    """Return the error of a row that took longer than `seconds`.

    Parameters
    ----------
    seconds : float
    read : bool
        Whether the clip had been read and encoded by then.
    """
    limit = rounded_duration(seconds or 0.0)
    doing = "to answer" if read else "to read the clip and answer"
    return OutOfTimeError(
        f"It took longer than {limit} {doing}.",
        hint="Raise --timeout, or ask about less: --start and --end, --max-frames, --max-pixels.",
    )


def _can_interrupt() -> bool:
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and hasattr(signal, "setitimer")
