"""Stage times and peak memory, measured where the work is done.

A stage's time includes the device's work (it is synchronised on leaving), and stages may nest:
what is measured inside another stage names it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from omnidrop.report.trace import Stage


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
        start = time.perf_counter()
        try:
            yield
        finally:
            if not overlapped:
                synchronize(self.device)
            stack.pop()
            self.add(name, time.perf_counter() - start, within=within, overlapped=overlapped)

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
                name=name,
                seconds=(before.seconds if before else 0.0) + seconds,
                within=within,
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
    """Highest resident set of this process so far, in bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
