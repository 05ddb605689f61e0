"""A model that stays loaded between questions, used by one asker at a time.

warm = WarmModel(LoadOptions(model="demo"), keep_alive=300)
with warm.use() as model, model.open("clip.mp4") as clip:
    print(clip.ask("What instrument plays first?").text)

Askers get their turns in the order in which they came, from any thread. A model that was not used
for a while is dropped, and loaded again at the next use.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from omnidrop.errors import ModelError, UsageError
from omnidrop.options import LoadOptions
from omnidrop.stages import Progress

if TYPE_CHECKING:
    from omnidrop.engine.model import Model

#: Seconds without use after which a model is dropped.
KEEP_ALIVE = 300.0


@dataclass(frozen=True)
class WarmInfo:
    """The state of a warm model at one moment.

    Attributes
    ----------
    options : LoadOptions
        What is loaded, as it was asked for.
    loaded : bool
        False before the first use, after `keep_alive` and after `close`.
    name, device, dtype : str
        Of the loaded model; empty if none is loaded.
    busy : bool
        Whether somebody has its turn.
    waiting : int
        How many wait for theirs.
    uses : int
        Turns that have ended.
    idle : float
        Seconds since the last turn ended, or since the beginning; 0 while it is busy.
    keep_alive : float or None
        Seconds of `idle` after which the model is dropped; None for never.
    host_memory : int
        Bytes of the process's resident set.
    device_memory : int or None
        Bytes allocated on the model's GPU; None without one.
    """

    options: LoadOptions
    loaded: bool
    name: str
    device: str
    dtype: str
    busy: bool
    waiting: int
    uses: int
    idle: float
    keep_alive: float | None
    host_memory: int
    device_memory: int | None


class Turn:
    """The right to use a model: taken, given up for a while, and ended.

    `WarmModel.turn` is the usual way to one. Whatever interrupts a method of it, `end` puts things
    right, any number of times.
    """

    def __init__(self, warm: WarmModel) -> None:
        self._warm = warm
        self._was_loaded = False

    def take(self, timeout: float | None = None) -> bool:
        """Wait for the turn; return False if it does not come within `timeout` seconds.

        Raises
        ------
        ModelError
            After `WarmModel.close`.
        """
        if not self._warm._turns.take(self, timeout):
            return False
        self._warm._enter(self)
        self._was_loaded = self._warm._model is not None
        return True

    def model(self, progress: Progress | None = None) -> Model:
        """Return the model; load it if it is not loaded.

        Its `warm` says whether it was loaded already when this turn began.

        Parameters
        ----------
        progress : callable, optional
            As `omnidrop.load` takes it.

        Raises
        ------
        OmniDropError
            Whatever `omnidrop.load` raises.
        """
        model = self._warm._get(progress)
        model.warm = self._was_loaded
        return model

    @contextmanager
    def rest(self) -> Iterator[None]:
        """Let others have the model during the block, which must not use it.

        The turn comes back at its end, after those that wait by then. The model is not dropped.
        """
        self._warm._turns.give(self)
        try:
            yield
        finally:
            self._warm._turns.take(self)
            model = self._warm._model
            if model is not None:
                model.warm = self._was_loaded

    def end(self) -> None:
        """Give the turn up for good."""
        self._warm._leave(self)
        self._warm._turns.give(self)


class WarmModel:
    """A model that is loaded at its first use and kept for the next.

    Parameters
    ----------
    options : LoadOptions
        Which model, and how it is loaded.
    keep_alive : float or None
        Seconds without use after which the model is dropped. 0 drops it after every use, None
        never.
    load : callable, optional
        Loads the model, from options and a progress callable or None; default `omnidrop.load`.

    Raises
    ------
    UsageError
        If `keep_alive` is negative or not a number.
    """

    def __init__(
        self,
        options: LoadOptions,
        keep_alive: float | None = KEEP_ALIVE,
        *,
        load: Callable[[LoadOptions, Progress | None], Model] | None = None,
    ) -> None:
        if keep_alive is not None and not keep_alive >= 0:
            raise UsageError(
                f"keep_alive must be 0 or more seconds, not {keep_alive:g}.",
                hint="0 drops the model after every use, None never.",
            )
        self.options = options
        self.keep_alive = keep_alive
        self._load = load or _load
        self._turns = _Turns()
        self._model: Model | None = None
        self._guard = threading.Lock()  # of what follows
        self._inside: set[Turn] = set()
        self._uses = 0
        self._left = time.monotonic()
        self._timer: threading.Timer | None = None
        self._closed = False
        self._hear: list[Callable[[], None]] = []

    def when_dropped(self, call: Callable[[], None]) -> None:
        """Call something whenever the model is dropped, so that it lets go of what holds it.

        It is called by the thread that drops the model, while nobody has a turn.
        """
        self._hear.append(call)

    @contextmanager
    def use(self, progress: Progress | None = None) -> Iterator[Model]:
        """Wait for a turn, load the model if it is not loaded, and have it until the block ends.

        Parameters
        ----------
        progress : callable, optional
            As `omnidrop.load` takes it.

        Raises
        ------
        ModelError
            After `close`.
        OmniDropError
            Whatever `omnidrop.load` raises.
        """
        with self.turn() as turn:
            yield turn.model(progress)

    @contextmanager
    def try_use(self, timeout: float, progress: Progress | None = None) -> Iterator[Model | None]:
        """Like `use`, with None in place of the model if the turn does not come in time.

        Parameters
        ----------
        timeout : float
            Seconds to wait for the turn; loading is not part of them.
        progress : callable, optional
            As `omnidrop.load` takes it.
        """
        with self.try_turn(timeout) as turn:
            yield None if turn is None else turn.model(progress)

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Wait for a turn, and have it until the block ends; nothing is loaded by that.

        Raises
        ------
        ModelError
            After `close`.
        """
        with self.try_turn(None) as turn:
            assert turn is not None
            yield turn

    @contextmanager
    def try_turn(self, timeout: float | None) -> Iterator[Turn | None]:
        """Like `turn`, with None if the turn does not come within `timeout` seconds."""
        turn = Turn(self)
        try:
            yield turn if turn.take(timeout) else None
        finally:
            turn.end()

    def info(self) -> WarmInfo:
        """Return the state at this moment."""
        model = self._model
        busy, waiting = self._turns.state()
        found = getattr(model, "info", None)
        device = str(getattr(found, "device", ""))
        return WarmInfo(
            options=self.options,
            loaded=model is not None,
            name=str(getattr(found, "name", "")),
            device=device,
            dtype=str(getattr(found, "dtype", "")).removeprefix("torch."),
            busy=busy,
            waiting=waiting,
            uses=self._uses,
            idle=0.0 if busy else time.monotonic() - self._left,
            keep_alive=self.keep_alive,
            host_memory=psutil.Process().memory_info().rss,
            device_memory=_device_memory(device),
        )

    def unload(self) -> bool:
        """Drop the model if nobody has a turn; return whether none is loaded now."""
        turn = Turn(self)
        if not self._turns.take(turn, 0):
            return False
        try:
            with self._guard:
                if self._inside:
                    return self._model is None
                self._model = None
            self._let_go()
            return True
        finally:
            self._turns.give(turn)

    def close(self) -> None:
        """Take no more uses, and drop the model: now, or when who has it leaves."""
        with self._guard:
            self._closed = True
            self._cancel()
        self.unload()

    def _get(self, progress: Progress | None) -> Model:
        if self._model is None:
            self._model = self._load(self.options, progress)
        return self._model

    def _enter(self, turn: Turn) -> None:
        with self._guard:
            if self._closed:
                raise ModelError("The warm model is closed.", hint="Load the model again.")
            self._inside.add(turn)
            self._cancel()

    def _leave(self, turn: Turn) -> None:
        """Count the use, and start the clock of `keep_alive`. The turn is still held."""
        drop = False
        with self._guard:
            if turn not in self._inside:
                return
            self._inside.discard(turn)
            self._uses += 1
            self._left = time.monotonic()
            if self._inside:
                return
            if self._closed or self.keep_alive == 0:
                self._model, drop = None, True
            elif self._model is not None and self.keep_alive is not None:
                self._timer = threading.Timer(self.keep_alive, self._expire)
                self._timer.daemon = True
                self._timer.start()
        if drop:
            self._let_go()

    def _let_go(self) -> None:
        for call in self._hear:
            call()
        _free_memory()

    def _expire(self) -> None:
        with self._guard:
            late = self.keep_alive is not None and (
                time.monotonic() - self._left >= self.keep_alive - 0.001
            )
        if late:
            self.unload()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Turns:
    """A lock that is given in the order in which it was asked for.

    It knows who has it and who waits, so that one who was interrupted between asking and having can
    give it up in any state.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: dict[object, threading.Event] = {}
        self._holder: object | None = None

    def take(self, who: object, timeout: float | None = None) -> bool:
        """Wait for the lock; return False if it does not come within `timeout` seconds."""
        mine = threading.Event()
        with self._guard:
            if self._holder is None:
                self._holder = who
                return True
            self._waiting[who] = mine
        try:
            mine.wait(timeout)
        except BaseException:  # Ctrl-C in the main thread
            self.give(who)
            raise
        with self._guard:
            self._waiting.pop(who, None)
            return self._holder is who

    def give(self, who: object) -> None:
        """Hand the lock to the one who waits longest, if `who` has it; else wait no more for it."""
        with self._guard:
            self._waiting.pop(who, None)
            if self._holder is not who:
                return
            self._holder = next(iter(self._waiting), None)
            if self._holder is not None:
                self._waiting.pop(self._holder).set()

    def state(self) -> tuple[bool, int]:
        """Return whether the lock is taken, and how many wait for it."""
        with self._guard:
            return self._holder is not None, len(self._waiting)


def _load(options: LoadOptions, progress: Progress | None) -> Model:
    from omnidrop.engine.model import load

    return load(options, progress=progress)


def _device_memory(device: str) -> int | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return int(torch.cuda.memory_allocated(device))


def _free_memory() -> None:
    """Give the memory of a dropped model back: to the system, and the GPU's to other processes."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # a call that glibc alone has
            ctypes.CDLL(None).malloc_trim(0)


__all__ = ["KEEP_ALIVE", "Turn", "WarmInfo", "WarmModel"]
