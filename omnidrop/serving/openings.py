"""Clips that requests open before their turn with the model: one at a time, and none twice."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

#: Seconds that a request waits while another opens its clip; usually that takes a tenth of this.
PATIENCE = 0.3


class Openings:
    """Which clips are open, or being opened, for requests that wait.

    Opening takes processor time that the model wants too. Eight clients that come at once would
    open eight clips before the first answer begins, and two questions about one clip would open it
    twice. A clip whose opening hangs loses its turn to the first request that waited long enough.
    """

    def __init__(self) -> None:
        self._guard = threading.Condition()
        self._turn: object | None = None
        self._open: Counter[Hashable] = Counter()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until nobody else opens a clip, but no longer than `PATIENCE`."""
        mine = object()
        with self._guard:
            self._guard.wait_for(lambda: self._turn is None, PATIENCE)
            self._turn = mine
        try:
            yield
        finally:
            with self._guard:
                if self._turn is mine:
                    self._turn = None
                    self._guard.notify()

    def add(self, key: Hashable) -> None:
        """Note that a clip is open."""
        with self._guard:
            self._open[key] += 1

    def drop(self, key: Hashable) -> None:
        """Note that it was closed."""
        with self._guard:
            self._open[key] -= 1
            if self._open[key] <= 0:
                del self._open[key]

    def __contains__(self, key: Hashable) -> bool:
        with self._guard:
            return key in self._open

    def __len__(self) -> int:
        with self._guard:
            return len(self._open)
