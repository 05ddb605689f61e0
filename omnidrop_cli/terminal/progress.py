"""Progress bars on stderr, for stages that last over a second, on a terminal only."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from omnidrop_cli.terminal import spinner

PATIENCE = 1.0


class Progress:
    """The `progress(stage, done, total or None)` that the library calls, as bars.

    Parameters
    ----------
    shown : bool
        Without it, calls do nothing.
    patience : float
        Seconds that a stage runs before its bar appears.
    """

    def __init__(self, shown: bool, patience: float = PATIENCE) -> None:
        self.shown = shown
        if not shown:
            spinner.stop()  # a config file or the environment asks for quiet
        self.patience = patience
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._bars: Any = None
        self._task: Any = None
        self._stage = ""
        self._state: tuple[float, float | None] = (0.0, None)

    def __call__(self, stage: str, done: float, total: float | None) -> None:
        if not self.shown:
            return
        with self._lock:
            self._state = (done, total)
            if stage != self._stage:
                spinner.say(stage)
                self._stage, self._task = stage, None
                self._arm()
            elif self._bars is not None and self._task is not None:
                self._bars.update(self._task, completed=done, total=total)

    def finish(self) -> None:
        """Remove the bars from the screen, so that something else can be written."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._stage = None, ""
            if self._bars is not None:
                with suppress(OSError, ValueError):
                    self._bars.stop()
            self._bars = self._task = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def _arm(self) -> None:
        """Show the stage's bar after `patience` seconds, unless it ends before."""
        if self._timer is not None:
            self._timer.cancel()
        if self._bars is not None:
            for task in list(self._bars.task_ids):
                self._bars.remove_task(task)
        self._timer = threading.Timer(self.patience, self._appear, args=(self._stage,))
        self._timer.daemon = True
        self._timer.start()

    def _appear(self, stage: str) -> None:
        with self._lock:
            if stage != self._stage or self._task is not None:
                return
            done, total = self._state
            if self._bars is None:
                spinner.stop()
                self._bars = _bars()
                self._bars.start()
            self._task = self._bars.add_task(stage, total=total, completed=done)


def _bars() -> Any:
    from rich.progress import (
        BarColumn,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    from omnidrop_cli.terminal.console import terminal

    return Bars(
        SpinnerColumn("line"),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        TaskProgressColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=terminal(),
        transient=True,
    )
