"""An iterator that is always one item ahead, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class _Next(threading.Thread, Generic[T]):
    """Takes one item. A daemon: one that hangs in a decoder does not keep the process alive."""

    def __init__(self, items: Iterator[T]) -> None:
        super().__init__(name="omnidrop-next-clip", daemon=True)
        self._items = items
        self._found: list[T] = []
        self._problem: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._found.append(next(self._items))
        except StopIteration:
            pass
        except BaseException as problem:  # raised by `result`
            self._problem = problem

    def result(self) -> list[T]:
        """Wait for the item; empty if there is none."""
        self.join()
        if self._problem is not None:
            raise self._problem
        return self._found


def one_ahead(items: Iterator[T], ahead: Callable[[], bool] = lambda: True) -> Iterator[T]:
    """Yield the items; each is made while the consumer works on the one before.

    Parameters
    ----------
    items : iterator
        Used by one thread at a time.
    ahead : callable
        Returns whether the next item may be made already; if not, it is made when the consumer has
        done with the one before.
    """
    coming: _Next[T] | None = None
    while found := (coming or _Next(items)).result():
        coming = _Next(items) if ahead() else None
        yield found[0]
