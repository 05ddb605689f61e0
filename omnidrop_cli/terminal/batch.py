"""How a batch goes on, on stderr: a line a row; on a terminal also a bar with rate and ETA."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from omnidrop.errors import printable
from omnidrop.format import clock
from omnidrop_cli.errors import BUG, BUG_CODE, complain
from omnidrop_cli.terminal.console import for_terminal, is_terminal, terminal

if TYPE_CHECKING:
    from omnidrop.batch.records import Record
    from omnidrop.batch.rows import Row
    from omnidrop.batch.run import Tally

#: Kinds of failures that the summary names.
_KINDS = 6


class BatchProgress:
    """Shows the rows of a run as they are begun and done.

    Parameters
    ----------
    tally : Tally
    quiet : bool
        Whether failures alone are told.
    """

    def __init__(self, tally: Tally, *, quiet: bool) -> None:
        self._tally, self._quiet = tally, quiet
        self._draws = is_terminal(sys.stderr) and not quiet
        self._bars: Any = None
        self._task: Any = None
        self._began = time.monotonic()

    def stage(self, stage: str, done: float, total: float | None) -> None:
        """Show what is being done with the current row."""
        if self._bars is not None:
            part = f" {100 * done / total:.0f} %" if total else ""
            self._bars.update(self._task, stage=f"{stage}{part}")

    def begin(self, row: Row) -> None:
        """Show a row that is begun."""
        if not self._draws:
            return
        if self._bars is None:
            self._began = time.monotonic()
            self._bars = _bars()
            self._task = self._bars.add_task("", total=self._tally.total, rate="", stage="")
            self._bars.start()
        text = f"{printable(row.clip.name)}  {_short(row.question, 40)}"
        self._bars.update(self._task, description=text, stage="")

    def done(self, tally: Tally, row: Row, record: Record) -> None:
        """Show a row that is done."""
        count = f"{tally.done}/{tally.total}"
        if record.get("error") is not None:
            text = str(record["error"])
            if record["exit_code"] == BUG_CODE:
                text = f"{text} {BUG}"
            self._write(lambda: complain(f"{row.id}: {text}"))
        elif not self._quiet:
            line = f"{count} {row.id}"
            if self._draws:
                answer = _short(record["text"], 40)
                known = record.get("probability")
                sure = f" ({known:.2f})" if known is not None else ""
                name = printable(row.clip.name)
                line = f"{count} {name}  {_short(row.question, 40)}  {answer}{sure}"
            self._write(lambda: print(for_terminal(line), file=sys.stderr, flush=True))
            if not record["text"].strip():
                from omnidrop.report.trace import EMPTY

                self._write(lambda: complain(f"{row.id}: {EMPTY}", "notice"))
        if self._bars is not None:
            self._bars.update(self._task, completed=tally.done, rate=self._rate(tally))

    def _rate(self, tally: Tally) -> str:
        """Return rows a minute, and the time that the rest takes at this rate."""
        seconds = time.monotonic() - self._began
        if not tally.asked or seconds <= 0:
            return ""
        left = (tally.total - tally.done) * seconds / tally.asked
        return f"{60 * tally.asked / seconds:.3g} rows a minute, {clock(left)} left"

    def _write(self, write: Any) -> None:
        """Write something above the bar."""
        if self._bars is not None:
            self._bars.stop()
        write()
        if self._bars is not None:
            self._bars.start()

    def finish(self) -> None:
        """Take the bar off the screen."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def summary(tally: Tally) -> list[str]:
    """Return what a run has done, in lines: counts, then the causes of failures by number."""
    parts = [f"{tally.answered} answered, {tally.failed} failed"]
    before = tally.before + tally.failed_before
    if before:
        failed = f" ({tally.failed_before} of them failed)" if tally.failed_before else ""
        parts.append(f"{before} done before{failed}")
    lines = [", ".join(parts)]
    lines += [f"{count} × {cause}" for cause, count in tally.causes.most_common(_KINDS)]
    rest = Counter(dict(tally.causes.most_common()[_KINDS:])).total()
    return [*lines, f"{rest} × other causes"] if rest else lines


def _short(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _bars() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bars

    from omnidrop_cli.terminal import spinner

    spinner.stop()
    return Bars(
        SpinnerColumn("line"),
        MofNCompleteColumn(),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[rate]}", markup=False),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[stage]}", markup=False),
        console=terminal(),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
