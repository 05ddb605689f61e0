"""Frames and audio of a clip, decoded before they are asked for.

For the next clip of a batch: while the model answers about one, threads decode what comes first of
the next. What they hold is bounded; the rest is decoded when it is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

from omnidrop.clip.options import FrameChunk
from omnidrop.clip.prefetch import Prefetch

T = TypeVar("T")

#: Bytes of resized frames that are held for a clip that is not encoded yet.
HELD = 128 << 20


class Early(Generic[T]):
    """A value that a thread of its own works out.

    Parameters
    ----------
    make : callable
    name : str
        Of the thread, a daemon.
    """

    def __init__(self, make: Callable[[], T], name: str) -> None:
        self._make = make
        self._found: list[T] = []
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found.append(self._make())
        except BaseException as problem:  # raised by `result`
            self._problem = problem

    def result(self) -> T:
        """Wait for the value, or raise what it could not be made for."""
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        return self._found[0]


def frames_ahead(
    chunks: Generator[FrameChunk, None, None], bytes_of_chunk: int
) -> Prefetch[FrameChunk]:
    """Decode chunks of frames in a thread, as many ahead as `HELD` has room for."""
    return Prefetch(chunks, max(1, HELD // max(1, bytes_of_chunk)), "omnidrop-frames-ahead")
