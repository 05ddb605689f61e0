"""Checks of a method's settings: each refuses what cannot be meant, in one sentence.

Settings arrive from Python and, as JSON values, from the command line, so types are checked too.
"""

from __future__ import annotations

import math
from typing import Any

from omnidrop.errors import UsageError


def one_of(field: str, value: object, known: tuple[str, ...]) -> None:
    """Refuse a value that is not among the known ones."""
    if value not in known:
        raise UsageError(f"Unknown {field} {value!r}.", hint=f"Use {', '.join(known)}.")


def number(field: str, value: Any, *, low: float = -math.inf, high: float = math.inf) -> None:
    """Refuse what is not a finite number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UsageError(f"{field} must be a number, not {value!r}.")
    if not low <= value <= high:
        wanted = f"{low:g} to {high:g}" if high < math.inf else f"{low:g} or more"
        raise UsageError(f"{field} cannot be {value!r}.", hint=f"Give {wanted}.")


def whole(field: str, value: Any, *, low: int) -> None:
    """Refuse what is not a whole number of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{field} must be a whole number, not {value!r}.")
    number(field, value, low=low)


def switch(field: str, value: Any) -> None:
    """Refuse what is neither true nor false."""
    if not isinstance(value, bool):
        raise UsageError(f"{field} must be true or false, not {value!r}.")


def shares(field: str, value: Any) -> tuple[float, ...]:
    """Return ascending shares of the depth as a tuple; refuse anything else."""
    if not isinstance(value, (list, tuple)) or not value:
        raise UsageError(f"{field} must be a list of shares of the depth, not {value!r}.")
    for share in value:
        number(field, share, low=0, high=1)
    if sorted(value) != list(value):
        raise UsageError(f"{field} {list(value)} must ascend.", hint="Give the first one first.")
    return tuple(value)
