"""Times of stages.

On a CUDA device a stage is timed by CUDA events, from its first work to its last. The host does not
wait for the stage to end, and work queued earlier is not counted. Time in which the device is idle,
waiting for the host, belongs to the stage. Host work done while the device still runs an earlier
stage adds nothing, and such a stage shows 0. So the times of all stages add up to the time until
the answer. On a CPU, and for work in parallel to the device (decoding), it is wall-clock time.

Stages may nest; a nested stage names the one around it. While a `MemoryWatch` is open
(`omnidrop.engine.memory`), a meter tells it when a stage begins and ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from omnidrop.engine.memory import current_watch
from omnidrop.report.trace import Stage


class WallClock:
    """Measures wall-clock time; synchronises with the device at the end of a stage.

    Parameters
    ----------
    device : torch.device, optional
        The device to synchronise with, unless it is the CPU.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device

    def begin(self) -> float:
        """Return the time at which a stage begins."""
        return time.perf_counter()

    def end(self) -> float:
        """Return the time at which a stage ends."""
        if self._device is not None:
            synchronize(self._device)
        return time.perf_counter()

    def seconds(self, begin: float, end: float) -> float:
        """Return the seconds between the two."""
        return end - begin


class EventClock:
    """Measures time by CUDA events; synchronises only when `seconds` is called.

    Parameters
    ----------
    device : torch.device
    make : callable, optional
        Makes an event; default `torch.cuda.Event` with timing.
    """

    def __init__(self, device: torch.device, make: Callable[[], Any] | None = None) -> None:
        self._device = device
        self._make = make or partial(torch.cuda.Event, enable_timing=True)

    def begin(self) -> Any:
        """Record an event in the current stream."""
        event = self._make()
        event.record(torch.cuda.current_stream(self._device))
        return event

    end = begin

    def seconds(self, begin: Any, end: Any) -> float:
        """Wait until the device has reached `end`, and return the seconds since `begin`."""
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000.0


def clock_of(device: torch.device) -> WallClock | EventClock:
    """Return the clock to time a device's work with."""
    return EventClock(device) if device.type == "cuda" else WallClock(device)


class Meter:
    """Adds up seconds per stage; thread-safe.

    Parameters
    ----------
    device : torch.device
        The device that runs the stages.
    clock : WallClock or EventClock, optional
        Default `clock_of` the device.
    """

    def __init__(self, device: torch.device, clock: WallClock | EventClock | None = None) -> None:
        self.device = device
        self.began = time.perf_counter()
        self._clock: Any = clock or clock_of(device)
        self._beside = WallClock()
        self._stages: dict[str, Stage] = {}
        self._pending: list[tuple[str, Any, Any]] = []
        self._open = threading.local()
        self._lock = threading.Lock()
        self._watch = current_watch()

    def begin_earlier(self, name: str, seconds: float) -> None:
        """Count a stage that ended before this meter was made, such as opening the file."""
        self.began -= seconds
        self.add(name, seconds)

    @contextmanager
    def stage(self, name: str, *, overlapped: bool = False) -> Iterator[None]:
        """Time a block of code; the seconds of repeated blocks add up."""
        stack: list[str] = getattr(self._open, "stack", [])
        self._open.stack = stack
        within = stack[-1] if stack else None
        stack.append(name)
        if self._watch is not None:
            self._watch.enter(name, overlapped)
        clock = self._beside if overlapped else self._clock
        begin = clock.begin()
        try:
            yield
        finally:
            end = clock.end()
            stack.pop()
            later = isinstance(clock, EventClock)
            seconds = 0.0 if later else clock.seconds(begin, end)
            self.add(name, seconds, within=within, overlapped=overlapped)
            if later:
                with self._lock:
                    self._pending.append((name, begin, end))
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

    def since_start_done(self) -> float:
        """Seconds since the meter was made; synchronises with the device first."""
        synchronize(self.device)
        return self.since_start()

    def names(self) -> tuple[str, ...]:
        """Names of the stages in the order they first finished; does not synchronise."""
        with self._lock:
            return tuple(self._stages)

    def stages(self) -> tuple[Stage, ...]:
        """Stages in the order they first finished; synchronises with the device."""
        with self._lock:
            for name, begin, end in self._pending:
                known = self._stages[name]
                spent = self._clock.seconds(begin, end)
                self._stages[name] = replace(known, seconds=known.seconds + spent)
            self._pending.clear()
            return tuple(self._stages.values())


def synchronize(device: torch.device) -> None:
    """Wait for the device's queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
