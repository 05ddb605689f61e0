"""An iterator that works in a thread of its own, a few items ahead of whoever takes them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Gate:
    """Where threads that read wait while something else needs the processors."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()

    def wait(self) -> None:
        """Go through, once it is open."""
        self._open.wait()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Keep it closed for a while."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()


class Ahead(Generic[T], Iterator[T]):
    """Runs a generator in a thread.

    Parameters
    ----------
    items : generator
        Run, and closed, in the thread.
    most : int
        Items made ahead at most; the thread waits while so many are there.
    name : str
        Of the thread.
    gate : Gate, optional
        Passed before each item is made.

    Notes
    -----
    What the generator raises is raised to whoever takes the next item. `close` it when no more is
    wanted.
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
        except BaseException as error:  # handed to the taker, who raises it
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
        """End the work and wait for the thread."""
        self._stop.set()
        self._thread.join(timeout=10.0)
