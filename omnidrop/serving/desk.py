"""One question at a time: a bounded queue before the model, time limits, and cancellation.

Jobs run in one thread, each with the model to itself. A job that was cancelled while it waited is
not started; one that runs is stopped at its next call of `alive`, between two layers, two tokens or
two chunks of the clip.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from omnidrop.serving.problems import Refused

if TYPE_CHECKING:
    from omnidrop.engine.model import Model
    from omnidrop.serving.warm import WarmModel

log = logging.getLogger("omnidrop.serving")

#: Jobs whose length the estimate of a wait is the mean of.
_REMEMBERED = 16


class Stopped(Exception):
    """Ends a job from inside: its client left, or its time is over."""


class Job:
    """A place in the queue, and then the work done for it.

    Parameters
    ----------
    desk : Desk
    seconds : float
        Most seconds until its end.

    Attributes
    ----------
    done : Future
        Its result.
    """

    def __init__(self, desk: Desk, seconds: float) -> None:
        self.done: Future[Any] = Future()
        self.deadline = time.monotonic() + seconds
        self.work: Callable[[Model, Job], Any] | None = None
        self._desk = desk
        self._cancelled = False

    def submit(self, work: Callable[[Model, Job], Any]) -> None:
        """Say what is to be done; it is done when its turn comes."""
        self.work = work
        self._desk.put(self)

    def cancel(self) -> None:
        """Stop the job, or give up its place."""
        self._cancelled = True
        self._desk.forget(self)

    @property
    def left(self) -> float:
        """Seconds until its time is over."""
        return self.deadline - time.monotonic()

    def alive(self) -> None:
        """Raise Stopped if the job was cancelled or its time is over."""
        if self._cancelled or self.left <= 0:
            raise Stopped


class Desk:
    """The queue and the thread that works through it.

    Parameters
    ----------
    warm : WarmModel
    places : int
        Jobs that may wait while one runs.
    """

    def __init__(self, warm: WarmModel, places: int) -> None:
        self._warm, self._places = warm, places
        self._guard = threading.Condition()
        self._ready: deque[Job] = deque()
        self._placed: set[Job] = set()
        self._running: Job | None = None
        self._closed = False
        self._took: deque[float] = deque(maxlen=_REMEMBERED)
        self._thread = threading.Thread(target=self._work, name="omnidrop-desk", daemon=True)
        self._thread.start()

    def reserve(self, seconds: float) -> Job:
        """Take a place in the queue; `Job.submit` or `Job.cancel` must follow.

        Raises
        ------
        Refused
            Status 429 if all places are taken.
        """
        job = Job(self, seconds)
        with self._guard:
            if self._closed:
                raise Refused(503, "The server is stopping.", code="stopping")
            if len(self._placed) > self._places:
                raise Refused(
                    429,
                    f"{len(self._placed)} requests are running or waiting; try again later.",
                    code="queue_full",
                    retry_after=self._mean(),
                )
            self._placed.add(job)
        return job

    @property
    def waiting(self) -> int:
        """Jobs that have a place and do not run."""
        with self._guard:
            return len(self._placed) - (self._running in self._placed)

    @property
    def running(self) -> bool:
        """Whether a job runs."""
        return self._running is not None

    def join(self, timeout: float = 10.0) -> None:
        """Wait for the thread to end after `stop`."""
        self._thread.join(timeout)

    def stop(self) -> None:
        """Stop the job that runs, drop the others, and take no more."""
        with self._guard:
            self._closed = True
            jobs = list(self._placed)
            self._guard.notify_all()
        for job in jobs:
            job.cancel()

    def put(self, job: Job) -> None:
        """Line up a job; `Job.submit` does."""
        with self._guard:
            if job in self._placed:
                self._ready.append(job)
                self._guard.notify()
                return
        job.done.set_exception(Stopped())

    def forget(self, job: Job) -> None:
        """Give up the place of a job that does not run; `Job.cancel` does."""
        with self._guard:
            if job is self._running:
                return
            self._placed.discard(job)
            waited = job in self._ready
            if waited:
                self._ready.remove(job)
        if waited:
            job.done.set_exception(Stopped())

    def _mean(self) -> float:
        return sum(self._took) / len(self._took) if self._took else 1.0

    def _work(self) -> None:
        while True:
            with self._guard:
                self._guard.wait_for(lambda: self._ready or self._closed)
                if not self._ready:
                    return
                job = self._running = self._ready.popleft()
            began = time.monotonic()
            try:
                self._finish(job)
            finally:
                self._took.append(time.monotonic() - began)
                with self._guard:
                    self._placed.discard(job)
                    self._running = None

    def _finish(self, job: Job) -> None:
        result, problem = None, None
        try:
            result = self._run(job)
        except BaseException as raised:
            problem = raised
        with suppress(InvalidStateError):  # somebody cancelled the future itself
            if problem is not None:
                job.done.set_exception(problem)
            else:
                job.done.set_result(result)

    def _run(self, job: Job) -> Any:
        assert job.work is not None
        job.alive()
        with self._warm.try_use(max(0.0, job.left)) as model:
            job.alive()
            if model is None:
                raise Stopped
            return job.work(model, job)
