"""Limits that a person states instead of a budget, and the largest budget that meets them.

Arithmetic only: what a machine does in a second is measured in `omnidrop.profiling.fit`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from omnidrop.errors import BudgetError, UsageError

#: Budgets are tried in steps of one percent.
STEPS = 100

REMEDY = "Lower --max-pixels or --fps, ask about a shorter span, or give --fit-pixels."


@dataclass(frozen=True)
class Limits:
    """What an answer may take.

    Parameters
    ----------
    latency : float, optional
        Seconds to the first token, opening and encoding the clip included.
    memory : float, optional
        Bytes held at once: in the GPU's own memory where the model is there, else by the process.
    """

    latency: float | None = None
    memory: float | None = None

    def __post_init__(self) -> None:
        if self.latency is None and self.memory is None:
            raise UsageError("Limits need a latency or a memory.", hint="Like Limits(latency=2).")
        for name, value in (("latency", self.latency), ("memory", self.memory)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(
                    f"A {name} of {value} cannot be kept to.", hint="Give a number above 0."
                )

    def __str__(self) -> str:
        parts = [] if self.latency is None else [f"--fit-latency {duration(self.latency)}"]
        parts += [] if self.memory is None else [f"--fit-memory {size(self.memory)}"]
        return " ".join(parts)


@dataclass(frozen=True)
class Pace:
    """How fast a machine takes a model's decoder, as a straight line.

    Attributes
    ----------
    rate : float
        FLOP/s.
    overhead : float
        Seconds of a prefill that do not grow with its tokens.
    choosing : float
        Seconds per audio or video token of the clip that the method takes to choose.
    """

    rate: float
    overhead: float = 0.0
    choosing: float = 0.0

    def seconds(self, flops: float, tokens: int) -> float:
        """Return the expected seconds of a prefill of a clip of so many tokens."""
        return flops / self.rate + self.overhead + self.choosing * tokens


@dataclass(frozen=True)
class Expected:
    """What a budget is expected to take; None where it has no limit.

    Attributes
    ----------
    budget : float
    latency : float or None
        Seconds to the first token.
    memory : float or None
        Bytes.
    """

    budget: float
    latency: float | None = None
    memory: float | None = None

    def meets(self, limits: Limits) -> bool:
        """Whether it is within every limit."""
        return all(
            limit is None or (value is not None and value <= limit)
            for value, limit in ((self.latency, limits.latency), (self.memory, limits.memory))
        )

    def __str__(self) -> str:
        parts = [] if self.latency is None else [duration(self.latency)]
        parts += [] if self.memory is None else [size(self.memory)]
        return " and ".join(parts)


def line(points: tuple[tuple[float, float], tuple[float, float]]) -> Pace:
    """Return the pace that two prefills measured show.

    Parameters
    ----------
    points : pair of (FLOPs, seconds)
        The smaller first. Where the larger took no longer, all its time counts as arithmetic.
    """
    (little, short), (much, long) = points
    if much <= little or long <= short:
        return Pace(much / long)
    rate = (much - little) / (long - short)
    return Pace(rate, max(short - little / rate, 0.0))


def largest(
    expect: Callable[[float], Expected], limits: Limits, *, ceiling: float = 1.0
) -> Expected:
    """Return the largest budget that meets the limits, in steps of one percent.

    Parameters
    ----------
    expect : callable
        From a budget to what it takes, which never falls as the budget rises. Raises BudgetError
        for a budget that the method cannot keep.
    limits : Limits
    ceiling : float
        No budget above this.

    Raises
    ------
    BudgetError
        If the least budget that the method can keep is too much; names what it takes.
    """
    known: dict[int, Expected | None] = {}

    def at(step: int) -> Expected | None:
        if step not in known:
            try:
                known[step] = expect(step / STEPS)
            except BudgetError:
                known[step] = None
        return known[step]

    top = max(1, math.floor(ceiling * STEPS + 1e-9))
    best: Expected | None = None
    low, high = 0, top + 1  # nothing above `high - 1` is wanted, nothing up to `low` is better
    while high - low > 1:
        middle = top if high > top else (low + high) // 2
        step = next((s for s in range(middle, low, -1) if at(s) is not None), None)
        found = None if step is None else at(step)
        if step is None or found is None:
            low = middle
        elif found.meets(limits):
            best, low = found, middle
        else:
            high = step
    if best is not None:
        return best
    least = next((found for step in range(1, top + 1) if (found := at(step)) is not None), None)
    if least is None:
        expect(top / STEPS)  # says itself what is wrong
        raise BudgetError(f"No budget up to {ceiling:g} can be kept.")
    raise BudgetError(
        f"{limits} cannot be met: even a budget of {least.budget:g} is expected to take {least}.",
        reachable=(least.budget, top / STEPS),
        hint=REMEDY,
    )


def notice(limits: Limits, found: Expected) -> str:
    """Say what was chosen: "--fit-latency 2 s: budget 0.18, expected 1.9 s"."""
    return f"{limits}: budget {found.budget:g}, expected {found}."


def duration(seconds: float) -> str:
    """Show seconds: "1.9 s", "350 ms"."""
    return f"{1000 * seconds:.3g} ms" if seconds < 0.9995 else f"{float(f'{seconds:.3g}'):g} s"


def size(count: float) -> str:
    """Show bytes: "12 GB", "812 MB"."""
    unit, name = (1e9, "GB") if count >= 999.5e6 else (1e6, "MB")
    return f"{float(f'{count / unit:.3g}'):g} {name}"
