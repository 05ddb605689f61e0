"""Peak memory of an answer and of its stages.

On the host the weights count once and whole, as their headers tell. Mapped weights are resident
only where they have been used, and twice where they were converted, so the resident set alone says
too little or too much. What counts beside them is measured: the process's own memory at its highest
since the question began, and the pages of libraries.

Measuring per stage slows the work down, so it is done only while a `MemoryWatch` is open.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from omnidrop import resident
from omnidrop.models.adapter import Adapter
from omnidrop.models.memory import has_own_memory

#: Seconds between two samples of a stage's memory, and of an answer's.
SAMPLING, SELDOM = 0.002, 0.01

#: How an answer's peak was found; see `Memory.measured`.
BY_KERNEL, BY_SAMPLES = "kernel", "samples"

_watch: ContextVar[MemoryWatch | None] = ContextVar("omnidrop memory watch", default=None)
_peak: ContextVar[HostPeak | None] = ContextVar("omnidrop host peak", default=None)


def current_watch() -> MemoryWatch | None:
    """Return the watch that is open, or None."""
    return _watch.get()


def reset_device_peak(device: torch.device) -> None:
    """Reset the device's peak allocation."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def device_peak(device: torch.device) -> int | None:
    """Peak bytes allocated on the device since the last reset; None if it does not count them."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return None


class Sampler:
    """Calls a function at intervals in a thread of its own; a context manager.

    Parameters
    ----------
    sample : callable
    seconds : float
        Between two calls.
    """

    def __init__(self, sample: Callable[[], None], seconds: float) -> None:
        self._sample, self._seconds = sample, seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="omnidrop-memory", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self._sample()


class HostPeak:
    """The most of the host's memory that is held while this is open; a context manager.

    The kernel's mark is exact and costs nothing. It is a sum of the process's own memory and of
    pages of files, so with mapped weights, which become resident one by one, the former is sampled
    as well.

    Parameters
    ----------
    adapter : Adapter
        The model that answers.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._mapped = adapter.weights.mapped_bytes
        self._files = _files_of(adapter) if self._mapped else ()
        self._own = 0
        self._marked = False
        self._sampler: Sampler | None = None

    def __enter__(self) -> HostPeak:
        self._token = _peak.set(self)
        self._marked = resident.reset_mark()
        self._sample()
        if self._mapped or not self._marked:
            self._sampler = Sampler(self._sample, SELDOM)
            self._sampler.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        _peak.reset(self._token)
        if self._sampler is not None:
            self._sampler.__exit__()

    @property
    def measured(self) -> str:
        """How: `BY_KERNEL` or `BY_SAMPLES`."""
        return BY_SAMPLES if self._sampler is not None else BY_KERNEL

    def bytes(self) -> int:
        """Return the peak so far."""
        self._sample()
        now = resident.held()
        marked = resident.mark() if self._marked else None
        if marked is not None:
            self._own = max(self._own, marked - now.files)
        return self._own + constant_bytes(self._mapped, self._files, now.files)

    def _sample(self) -> None:
        self._own = max(self._own, resident.held().own)


def constant_bytes(mapped: int, files: Collection[Path], resident_files: int) -> int:
    """Return the bytes that are held beside the process's own: mapped weights, and libraries.

    Parameters
    ----------
    mapped : int
        Bytes of weights that are mapped.
    files : collection of Path
        Their files.
    resident_files : int
        Bytes of all files that are resident.
    """
    weights = resident.resident_of(files) if mapped else 0
    return mapped + max(0, resident_files - weights)


def held_on_host(adapter: Adapter) -> int:
    """Return the bytes held now, with every mapped weight whether it was used or not."""
    now, mapped = resident.held(), adapter.weights.mapped_bytes
    return now.own + constant_bytes(mapped, _files_of(adapter), now.files)


def in_use(adapter: Adapter) -> tuple[int, int]:
    """Return the bytes held now, and the most held since the question began, where the model is."""
    if has_own_memory(adapter.device):
        now = int(torch.cuda.memory_allocated(adapter.device))
        return now, max(now, device_peak(adapter.device) or 0)
    now, peak = held_on_host(adapter), _peak.get()
    return now, now if peak is None else max(now, peak.bytes())


def _files_of(adapter: Adapter) -> tuple[Path, ...]:
    return () if adapter.folder is None else tuple(adapter.folder.glob("*.safetensors"))


@dataclass(frozen=True)
class StageMemory:
    """Peak bytes while a stage was open; None where it cannot be measured.

    Attributes
    ----------
    host : int or None
        Held by the process, weights counted whole.
    device : int or None
        Allocated on the device.
    """

    host: int | None = None
    device: int | None = None


class MemoryWatch:
    """Peak memory of every stage that a meter measures while the watch is open.

    A thread samples the process's own memory every two milliseconds and counts it for every open
    stage; the device's peak counter is read and reset whenever a stage begins or ends. Both slow
    the work down, so memory and time are measured in separate runs.

    Parameters
    ----------
    device : torch.device
    adapter : Adapter, optional
        The model that answers: its mapped weights are counted in every stage.
    """

    def __init__(self, device: torch.device, adapter: Adapter | None = None) -> None:
        self.device = device
        self._mapped = adapter.weights.mapped_bytes if adapter is not None else 0
        self._files = _files_of(adapter) if adapter is not None else ()
        self._constant = 0
        self._peaks: dict[str, StageMemory] = {}
        self._open: list[str] = []
        self._on_device: list[str] = []
        self._lock = threading.Lock()
        self._sampler = Sampler(self._sample, SAMPLING)

    def __enter__(self) -> MemoryWatch:
        self._token = _watch.set(self)
        reset_device_peak(self.device)
        self._sampler.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        _watch.reset(self._token)
        self._sampler.__exit__()
        self._constant = constant_bytes(self._mapped, self._files, resident.held().files)

    @property
    def peaks(self) -> dict[str, StageMemory]:
        """Peak memory by stage, once the watch is closed."""
        with self._lock:
            return {
                name: replace(peak, host=(peak.host or 0) + self._constant)
                for name, peak in self._peaks.items()
            }

    def enter(self, name: str, overlapped: bool) -> None:
        """Record that a stage begins; an overlapped one does not use the device."""
        with self._lock:
            self._open.append(name)
            self._credit_host()
            if not overlapped:
                self._credit_device()
                self._on_device.append(name)

    def leave(self, name: str, overlapped: bool) -> None:
        """Record that a stage ends."""
        with self._lock:
            self._credit_host()
            self._open.remove(name)
            if not overlapped:
                self._credit_device()
                self._on_device.remove(name)

    def _sample(self) -> None:
        with self._lock:
            self._credit_host()

    def _credit_host(self) -> None:
        own = resident.held().own
        for name in self._open:
            before = self._peaks.get(name, StageMemory())
            self._peaks[name] = replace(before, host=max(before.host or 0, own))

    def _credit_device(self) -> None:
        """Count the peak since the last call for the stages open since then."""
        peak = device_peak(self.device)
        if peak is None:
            return
        for name in self._on_device:
            before = self._peaks.get(name, StageMemory())
            self._peaks[name] = replace(before, device=max(before.device or 0, peak))
        reset_device_peak(self.device)
