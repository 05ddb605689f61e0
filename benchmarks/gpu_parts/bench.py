"""Runs measurements in turns within a time limit; prints and saves each row when it is done."""

from __future__ import annotations

import gc
import json
import platform
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from omnidrop.errors import MemoryShortError

SCHEMA = "omnidrop.gpu/1"
OUT_OF_MEMORY = "out of memory"

#: Seconds of the limit that are reserved for writing and for errors of estimates.
RESERVE = 2.0

Reading = dict[str, Any]
Cell = Callable[[], Reading]


class TooLongError(BaseException):
    """A cell took too long. Not an `Exception`, so that no library catches it."""


class Bench:
    """One run.

    Parameters
    ----------
    device : torch.device
    repeats : int
        Measured rounds, after one warm-up round.
    limit : float, optional
        Seconds for everything, counted from `began`.
    began : float, optional
        `time.perf_counter()` when the run began; now, if not given.
    out : Path, optional
        JSON file, written after every row.
    about : dict, optional
        More values for the JSON.

    Attributes
    ----------
    rows : list of dict
        Measurements: part, name and values of each row.
    left_out : list of dict
        Measurements that were left out, and why.
    wrong : bool
        Whether a cell failed for another reason than memory or time.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        repeats: int = 3,
        limit: float | None = None,
        began: float | None = None,
        out: Path | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.device, self.repeats, self.limit, self.out = device, repeats, limit, out
        self.began = time.perf_counter() if began is None else began
        self.rows: list[dict[str, Any]] = []
        self.left_out: list[dict[str, Any]] = []
        self.wrong = False
        cuda = device.type == "cuda"
        self.about = {
            "schema": SCHEMA,
            "device": torch.cuda.get_device_name(device) if cuda else "cpu",
            "cuda": torch.version.cuda if cuda else None,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
            "repeats": repeats,
            "limit": limit,
            **(about or {}),
        }

    def left(self) -> float:
        """Seconds left; infinite without a limit."""
        if self.limit is None:
            return float("inf")
        return self.limit - RESERVE - (time.perf_counter() - self.began)

    def allows(self, part: str, name: str, seconds: float = 0.0) -> bool:
        """Return whether `seconds` are left; if not, note and print that it is left out."""
        left = self.left()
        if left > 0 and seconds <= left:
            return True
        self.leave_out(part, name, f"no time: {max(left, 0):.0f} s left, {seconds:.0f} s needed")
        return False

    def leave_out(self, part: str, name: str, reason: str) -> None:
        """Record and print, once, that something is not measured."""
        if any((known["part"], known["name"]) == (part, name) for known in self.left_out):
            return
        self.left_out.append({"part": part, "name": name, "reason": reason})
        print(f"{part} | {name} | left out: {reason}", flush=True)
        self.save()

    def row(self, part: str, name: str, **values: Any) -> dict[str, Any]:
        """Print and save a row."""
        row = {"part": part, "name": name, **values}
        self.rows.append(row)
        print(line(part, name, values), flush=True)
        self.save()
        return row

    def fail(self, part: str, name: str, error: BaseException, **about: Any) -> str:
        """Add a row for a failure; return its text."""
        if isinstance(error, (torch.OutOfMemoryError, MemoryShortError)):
            reason = OUT_OF_MEMORY
        elif isinstance(error, TooLongError):
            reason = str(error)
        else:
            self.wrong = True
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        self.row(part, name, **about, failed=reason)
        return reason

    def turns(
        self,
        part: str,
        cells: dict[str, Cell],
        *,
        bounds: dict[str, float] | None = None,
        **about: Any,
    ) -> dict[str, dict[str, Any]]:
        """Measure cells in turns: one warm-up round, then `repeats` measured rounds.

        Parameters
        ----------
        part : str
        cells : dict of callable
            Each returns its readings; the row has the median of numbers, else the last value.
        bounds : dict of float, optional
            Seconds after which a cell is interrupted.
        **about
            Values for every row: shape, tokens.

        Returns
        -------
        dict of dict
            The rows of the cells that did not fail. `rounds` is the number of measured rounds; if
            it is 0, time was enough for the warm-up round only, and the row has its readings.
        """
        readings: dict[str, list[Reading]] = {name: [] for name in cells}
        took: dict[str, float] = {}
        over: set[str] = set()
        for turn in range(self.repeats + 1):
            for name, cell in cells.items():
                if name in over:
                    continue
                guess = took.get(name, max(took.values(), default=0.0))
                if not self.allows(part, f"{name}{words(about)}, round {turn}", guess):
                    over.add(name)
                    continue
                start = time.perf_counter()
                try:
                    with interrupted(min((bounds or {}).get(name, float("inf")), self.left())):
                        read = cell()
                except (Exception, TooLongError) as error:
                    over.add(name)
                    if readings[name] and isinstance(error, TooLongError):
                        self.leave_out(part, f"{name}{words(about)}, round {turn}", str(error))
                    else:
                        readings[name].clear()
                        self.fail(part, name, error, **about)
                    del error
                    free(self.device)
                    continue
                took[name] = time.perf_counter() - start
                readings[name].append(read)
                main = dict(list(read.items())[:2])
                print("  " + line(part, f"{name}, round {turn}", main), flush=True)
        rows = {}
        for name, read in readings.items():
            if not read:
                continue
            counted = read[1:] or read
            values = {key: middle([r[key] for r in counted]) for key in counted[0]}
            rows[name] = self.row(part, name, **about, **values, rounds=len(read) - 1)
        return rows

    def result(self) -> dict[str, Any]:
        """Return all results as plain values."""
        seconds = time.perf_counter() - self.began
        whole = {**self.about, "seconds": seconds, "rows": self.rows, "left_out": self.left_out}
        return plain(whole)

    def save(self) -> None:
        """Write the results so far."""
        if self.out is not None:
            text = json.dumps(self.result(), indent=1) + "\n"
            part = self.out.with_name(self.out.name + ".part")
            part.write_text(text, encoding="utf-8")
            part.replace(self.out)


@contextmanager
def interrupted(seconds: float) -> Iterator[None]:
    """Raise `TooLongError` in the `with` block after `seconds`."""

    def stop(*_: object) -> None:
        raise TooLongError(f"not done after {seconds:.0f} s")

    if seconds == float("inf"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def middle(values: list[Any]) -> Any:
    """Return the median of numbers, or the last value of anything else."""
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        return statistics.median(values)
    return values[-1]


def free(device: torch.device) -> None:
    """Free unused memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def words(about: dict[str, Any]) -> str:
    """Return the values that identify a row's table, as text."""
    return "".join(f", {value}" for value in about.values())


def line(part: str, name: str, values: dict[str, Any]) -> str:
    """Return one row as text."""
    shown = (f"{key} {word(value)}" for key, value in values.items())
    return " | ".join([part, name, ", ".join(shown)])


def word(value: Any) -> str:
    """Return a value as short text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and len(value) > 8:
        return f"[{', '.join(word(v) for v in value[:6])}, … {len(value)}]"
    return str(value)


def plain(value: Any) -> Any:
    """Replace NaN and infinities by None, because JSON does not have them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value
