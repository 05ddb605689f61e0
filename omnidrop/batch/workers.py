"""Processes that answer: one for each GPU, and one where rows have a limit of time.

Each has an `Answerer` of its own and gets the rows of one clip at a time, with the next clip's
following so that it can be opened meanwhile. Only this process writes records. A process that dies,
or that does not end a row in time, is replaced: the row that it was at is recorded as failed, and
its other rows go to another.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import connection, get_context
from types import TracebackType
from typing import Any

from omnidrop.batch.answering import Answerer, AnswerOptions, Hooks
from omnidrop.batch.records import Keys, Record, failed
from omnidrop.batch.rows import Row
from omnidrop.batch.timeouts import GRACE, out_of_time
from omnidrop.errors import MediaError, MemoryShortError, ModelError

#: Groups that a process has at once: the one it answers and the next.
_AT_ONCE = 2
#: Processes that may end in a row before one of them has begun a row.
_MOST_STARTS = 2
#: Processes that may end in a row of the batch before it is given up.
_MOST_ENDS = 2
#: Seconds that a process gets to end when there is nothing left to do.
_PATIENCE = 10.0


@dataclass
class _Task:
    """Rows of one clip for a process, how many of them are done, and if any row ever was."""

    rows: Sequence[Row]
    keys: dict[str, Keys]
    alone: bool = False
    done: int = 0
    readable: bool = False

    @property
    def left(self) -> Sequence[Row]:
        return self.rows[self.done :]


@dataclass
class _Worker:
    """One process: what it has to do, and since when it is at its row."""

    process: Any
    pipe: Any
    number: int
    tasks: deque[_Task] = field(default_factory=deque)
    began: float | None = None
    ready: bool = False
    late: bool = False


class Crew:
    """Processes that answer rows; a context manager.

    Parameters
    ----------
    options : AnswerOptions
    count : int
        Processes. On CUDA each gets a GPU of its own, as far as there are so many; on a CPU they
        share the cores.
    on_row : callable, optional
        Called with each row that a process begins.
    start : callable, optional
        Called first in each process, which must be able to import it.
    """

    def __init__(
        self,
        options: AnswerOptions,
        count: int,
        *,
        on_row: Callable[[Row], None] | None = None,
        start: Callable[[], None] | None = None,
    ) -> None:
        self._options, self._count = options, count
        self._on_row, self._start = on_row, start
        self._workers: list[_Worker] = []
        self._waiting: deque[_Task] = deque()
        self._ends: Counter[str] = Counter()
        self._failed_starts = 0

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            with suppress(OSError):
                worker.pipe.send(None)
        end = time.monotonic() + (_PATIENCE if error is None else 0.0)
        for worker in self._workers:
            worker.process.join(max(0.0, end - time.monotonic()))
            _end(worker)
        self._workers.clear()

    def answer_clips(
        self, groups: Iterable[tuple[Sequence[Row], dict[str, Keys]]]
    ) -> Iterator[Record]:
        """Answer groups of rows as `Answerer.answer_clips` does, in the order they are done.

        Raises
        ------
        OmniDropError
            What the model cannot be loaded for.
        """
        coming = iter(groups)
        while True:
            self._hand_out(coming)
            if not any(worker.tasks for worker in self._workers):
                return
            for worker in self._ready():
                yield from self._heard(worker)
            for worker in self._late():
                worker.late = True
                _end(worker)

    # Handing out

    def _hand_out(self, coming: Iterator[tuple[Sequence[Row], dict[str, Keys]]]) -> None:
        for depth in range(1, _AT_ONCE + 1):  # first one for each, then the next ones
            for number in range(self._count):
                worker = self._at(number)
                if worker is not None and len(worker.tasks) >= depth:
                    continue
                if worker is not None and any(task.alone for task in worker.tasks):
                    continue
                task = self._next(coming, first=worker is None or not worker.tasks)
                if task is None:
                    continue
                worker = worker or self._started(number)
                worker.tasks.append(task)
                with suppress(OSError):  # it has just died, which is seen in its turn
                    worker.pipe.send((list(task.left), task.keys))

    def _next(
        self, coming: Iterator[tuple[Sequence[Row], dict[str, Keys]]], *, first: bool
    ) -> _Task | None:
        if self._waiting and (first or not self._waiting[0].alone):
            return self._waiting.popleft()
        if not first and not self._options.read_ahead:
            return None
        found = next(coming, None)
        return None if found is None else _Task(*found)

    def _at(self, number: int) -> _Worker | None:
        return next((worker for worker in self._workers if worker.number == number), None)

    def _started(self, number: int) -> _Worker:
        context = get_context("spawn")  # a fork would copy threads and CUDA's state
        mine, theirs = context.Pipe()
        arguments = (theirs, self._options, number, self._count, self._start)
        process = context.Process(target=work, args=arguments, name=f"omnidrop-{number}")
        process.daemon = True
        process.start()
        theirs.close()
        worker = _Worker(process, mine, number)
        self._workers.append(worker)
        return worker

    # Listening

    def _ready(self) -> list[_Worker]:
        """Wait until a process has said something, has ended, or is late."""
        limit = self._options.timeout
        due = [w.began + limit + GRACE for w in self._workers if limit and w.began is not None]
        wait = max(0.0, min(due) - time.monotonic()) if due else None
        # Not the processes: what one has said before it ended is in its pipe, and is read first.
        found = set(connection.wait([worker.pipe for worker in self._workers], wait))
        return [worker for worker in self._workers if worker.pipe in found]

    def _late(self) -> list[_Worker]:
        limit = self._options.timeout
        if limit is None:
            return []
        last = time.monotonic() - limit - GRACE
        return [w for w in self._workers if w.began is not None and w.began < last and not w.late]

    def _heard(self, worker: _Worker) -> Iterator[Record]:
        try:
            kind, what = worker.pipe.recv()
        except (EOFError, OSError):
            yield from self._ended(worker)
            return
        if kind == "row":
            worker.ready = True
            self._failed_starts = 0
            worker.began = time.monotonic()
            if self._on_row is not None:
                self._on_row(what)
        elif kind == "record":
            worker.began = None
            task = worker.tasks[0]
            task.done += 1
            task.readable = True
            if not task.left:
                worker.tasks.popleft()
            yield what
        else:
            raise what

    def _ended(self, worker: _Worker) -> Iterator[Record]:
        """Take the rows of a process that is no more; its row has failed, or is tried alone."""
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        how = _how(worker.process.exitcode)
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_STARTS:
                raise _cannot_start(how)
            self._waiting.extendleft(reversed(worker.tasks))
            return
        tasks = list(worker.tasks)
        if tasks and worker.began is not None:
            current, *others = tasks
            row = current.left[0]
            problem: Exception = _lost(row, how)
            if worker.late:
                problem = out_of_time(self._options.timeout, read=False)
            else:
                self._ends[row.id] += 1
                # The next clip may have been the cause, and a kill comes from outside.
                if self._ends[row.id] < _MOST_ENDS and (others or how == "SIGKILL"):
                    self._wait(tasks, alone=True)
                    return
            # Where none answered any of the rows, it has most likely ended in reading the clip.
            for lost in current.left[:1] if current.readable else current.left:
                yield failed(lost, current.keys[lost.id], problem)
                current.done += 1
        self._wait(tasks, alone=False)

    def _wait(self, tasks: list[_Task], *, alone: bool) -> None:
        left = [replace(task, rows=task.left, done=0, alone=alone) for task in tasks if task.left]
        self._waiting.extendleft(reversed(left))


def work(
    pipe: Any,
    options: AnswerOptions,
    number: int,
    count: int,
    start: Callable[[], None] | None,
) -> None:
    """Answer the rows that come through a pipe; the whole life of a process.

    Parameters
    ----------
    pipe : Connection
        Gives (rows, keys), or None at the end. Takes ("row", Row) when a row begins,
        ("record", dict) when it is done, and ("problem", exception) if there is no model.
    options : AnswerOptions
    number, count : int
        Which of how many processes this is.
    start : callable or None
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the one that writes
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _leave_with_parent()
    with suppress(OSError):
        os.dup2(2, 1)  # stdout may hold the answers
    _share_cores(count)
    if start is not None:
        start()
    said = threading.Lock()

    def say(kind: str, what: Any) -> None:
        with said:
            pipe.send((kind, what))

    def groups() -> Iterator[tuple[Sequence[Row], dict[str, Keys]]]:
        while (found := pipe.recv()) is not None:
            yield found

    try:
        answerer = Answerer(_on_device(options, number), Hooks(on_row=lambda r: say("row", r)))
        for record in answerer.answer_clips(groups()):
            say("record", record)
    except (EOFError, BrokenPipeError):
        return
    except Exception as problem:
        with suppress(Exception):
            say("problem", problem)
        sys.exit(1)


def _on_device(options: AnswerOptions, number: int) -> AnswerOptions:
    """Return the options with a GPU for this process, where there is one for each."""
    if options.load.device not in ("auto", "cuda"):
        return options
    import torch

    if not torch.cuda.is_available():
        return options
    device = f"cuda:{number % torch.cuda.device_count()}"
    return replace(options, load=replace(options.load, device=device))


def _share_cores(count: int) -> None:
    """Give this process its share of the cores; before torch is imported."""
    if count > 1 and "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // count))


def _leave_with_parent() -> None:
    """End this process when the one that started it ends, however that ends."""
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="omnidrop-parent", daemon=True).start()


def _end(worker: _Worker) -> None:
    """End a process that has not ended by itself."""
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join(_PATIENCE)


def _how(code: int | None) -> str:
    """Return how a process ended, in words."""
    if code is not None and code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _lost(row: Row, how: str) -> MediaError:
    killed = how == "SIGKILL"
    what = "was killed" if killed else f"ended ({how})"
    hint = "convert it, for example to mp4, and name the new file."
    if killed:
        hint = "where memory runs out, the system does that: lower --max-pixels, --fps or --budget."
    return MediaError(
        f"The process {what} while it answered this row.", path=row.clip, hint=hint.capitalize()
    )


def _cannot_start(how: str) -> MemoryShortError | ModelError:
    if how == "SIGKILL":
        return MemoryShortError(
            "The process was killed while it loaded the model, as the system does when memory runs "
            "out.",
            hint="Use fewer --workers, a smaller model or --4bit.",
        )
    return ModelError(
        f"The process ended ({how}) while it loaded the model.",
        hint="Run the same command without --workers and --timeout to see why.",
    )


def gpus() -> int:
    """Return how many CUDA devices there are; torch is not imported where there is one at most."""
    from pathlib import Path

    if len(list(Path("/dev").glob("nvidia[0-9]*"))) < 2:
        return 1
    import torch

    return max(1, torch.cuda.device_count()) if torch.cuda.is_available() else 1
