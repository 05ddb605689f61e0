"""Stage times and peak memory, measured where the work is done.

A stage's time includes the device's work (it is synchronised on leaving), and stages may nest:
what is measured inside another stage names it. Peak memory per stage costs time to watch, so it is
watched only where a `MemoryWatch` is open.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import psutil
import torch

from omnidrop.report.trace import Stage

#: Seconds between two looks at the process's resident set.
LOOK = 0.002

_watch: ContextVar[MemoryWatch | None] = ContextVar("omnidrop memory watch", default=None)


class Meter:
    """Adds up seconds per stage; safe to use from the thread that decodes.

    Parameters
    ----------
    device : torch.device
        Synchronised when a stage ends, unless it is the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.began = time.perf_counter()
        self._stages: dict[str, Stage] = {}
        self._open = threading.local()
        self._lock = threading.Lock()
        self._watch = _watch.get()

    def begin_earlier(self, name: str, seconds: float) -> None:
        """Count a stage that ended before this meter was made, such as opening the file."""
        self.began -= seconds
        self.add(name, seconds)

    @contextmanager
    def stage(self, name: str, *, overlapped: bool = False) -> Iterator[None]:
        """Measure a block; entered again, its seconds add up."""
        stack: list[str] = getattr(self._open, "stack", [])
        self._open.stack = stack
        within = stack[-1] if stack else None
        stack.append(name)
        if self._watch is not None:
            self._watch.enter(name, overlapped)
        start = time.perf_counter()
        try:
            yield
        finally:
            if not overlapped:
                synchronize(self.device)
            stack.pop()
            self.add(name, time.perf_counter() - start, within=within, overlapped=overlapped)
            if self._watch is not None:
                self._watch.leave(name, overlapped)

    def add(
        self,
        name: str,
        seconds: float,
        *,
        within: str | None = None,
        overlapped: bool = False,
        reused: bool = False,
    ) -> None:
        """Add seconds to a stage."""
        with self._lock:
            before = self._stages.get(name)
            self._stages[name] = Stage(
                name=str(name),  # plain text, not a `StageName`
                seconds=(before.seconds if before else 0.0) + seconds,
                within=None if within is None else str(within),
                reused=reused,
                overlapped=overlapped,
            )

    def since_start(self) -> float:
        """Seconds since the meter was made."""
        return time.perf_counter() - self.began

    def stages(self) -> tuple[Stage, ...]:
        """Stages in the order they were first finished."""
        with self._lock:
            return tuple(self._stages.values())


def synchronize(device: torch.device) -> None:
    """Wait for the device's queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def reset_device_peak(device: torch.device) -> None:
    """Start a new reading of the device's peak allocation."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def device_peak(device: torch.device) -> int | None:
    """Peak bytes allocated on the device since the last reset; None where nothing counts them."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return None


def host_peak() -> int:
    """Return the highest resident set of this process so far, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


@dataclass(frozen=True)
class StageMemory:
    """Peak bytes while a stage was open; None where nothing tells.

    Attributes
    ----------
    host : int or None
        Resident set of the process.
    device : int or None
        Allocated on the device.
    """

    host: int | None = None
    device: int | None = None


class MemoryWatch:
    """Peak memory of every stage that a meter measures while the watch is open.

    A thread looks at the resident set every two milliseconds and credits every open stage with it;
    the device's own peak counter is read and reset whenever a stage begins or ends. Both slow the
    work down: watch in a pass of its own, not in one that is timed.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._peaks: dict[str, StageMemory] = {}
        self._open: list[str] = []
        self._on_device: list[str] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> MemoryWatch:
        self._token = _watch.set(self)
        reset_device_peak(self.device)
        self._thread = threading.Thread(target=self._look, name="omnidrop-memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        _watch.reset(self._token)
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def peaks(self) -> dict[str, StageMemory]:
        """Peak memory by stage."""
        with self._lock:
            return dict(self._peaks)

    def enter(self, name: str, overlapped: bool) -> None:
        """Note that a stage begins; an overlapped one never touches the device."""
        with self._lock:
            self._open.append(name)
            self._credit_host()
            if not overlapped:
                self._credit_device()
                self._on_device.append(name)

    def leave(self, name: str, overlapped: bool) -> None:
        """Note that a stage ends."""
        with self._lock:
            self._credit_host()
            self._open.remove(name)
            if not overlapped:
                self._credit_device()
                self._on_device.remove(name)

    def _look(self) -> None:
        while not self._stop.wait(LOOK):
            with self._lock:
                self._credit_host()

    def _credit_host(self) -> None:
        held = resident()
        for name in self._open:
            before = self._peaks.get(name, StageMemory())
            self._peaks[name] = replace(before, host=max(before.host or 0, held))

    def _credit_device(self) -> None:
        """Credit the peak since the last call to the stages open since then."""
        peak = device_peak(self.device)
        if peak is None:
            return
        for name in self._on_device:
            before = self._peaks.get(name, StageMemory())
            self._peaks[name] = replace(before, device=max(before.device or 0, peak))
        reset_device_peak(self.device)


def resident() -> int:
    """Return this process's resident set in bytes now."""
    return int(psutil.Process().memory_info().rss)
