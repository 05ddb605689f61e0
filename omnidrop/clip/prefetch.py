"""Prefetching: an iterator that runs in its own thread, a few items ahead of the consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Gate:
    """Makes reader threads wait while something else needs the processors."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()

    def wait(self) -> None:
        """Wait until the gate is open."""
        self._open.wait()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Close the gate for the duration of a block."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()


class Prefetch(Generic[T], Iterator[T]):
    """Runs a generator in a thread.

    Parameters
    ----------
    items : generator
        Run and closed in the thread.
    most : int
        Most items held; the thread waits while so many are ready.
    name : str
        Name of the thread.
    gate : Gate, optional
        Waited at before each item is made.

    Notes
    -----
    An exception of the generator is raised to the consumer. Call `close` when no more items are
    needed.
    """

    def __init__(
        self, items: Generator[T, None, None], most: int, name: str, gate: Gate | None = None
    ) -> None:
        self._items = items
        self._gate = gate or Gate()
        self._queue: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(maxsize=most)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            for item in self._items:
                self._put((item,))
                self._gate.wait()
                if self._stop.is_set():
                    break
            self._items.close()
            self._put(None)
        except BaseException as error:  # raised by the consumer
            self._put(error)

    def _put(self, item: tuple[T] | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def __next__(self) -> T:
        if self._stop.is_set():
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, tuple):
            return item[0]
        self._stop.set()
        if item is None:
            raise StopIteration
        raise item

    def ready(self) -> bool:
        """Whether the next item is there already."""
        with self._queue.mutex:
            held = self._queue.queue
            return bool(held) and isinstance(held[0], tuple)

    def close(self) -> None:
        """Stop and wait for the thread."""
        self._stop.set()
        self._thread.join(timeout=10.0)
