"""Values as people write them: choices and times."""

from __future__ import annotations

import csv
import json
import math


def split_choices(text: str) -> tuple[str, ...]:
    """Return the choices of `yes,no`, of `"red, white",blue` or of a JSON list."""
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if isinstance(found, list):
            return tuple(str(choice).strip() for choice in found)
    rows = list(csv.reader([text], skipinitialspace=True))
    return tuple(choice.strip() for choice in (rows[0] if rows else ()))


def seconds_of(text: str) -> float | None:
    """Return the seconds of `75`, `1:15` or `0:01:15.5`; None if it is none of them."""
    parts = text.strip().split(":")
    if not 1 <= len(parts) <= 3:
        return None
    try:
        numbers = [float(p) if i == len(parts) - 1 else float(int(p)) for i, p in enumerate(parts)]
    except ValueError:
        return None
    if any(not math.isfinite(n) or n < 0 for n in numbers) or any(n >= 60 for n in numbers[1:]):
        return None
    return sum(n * 60.0**i for i, n in enumerate(reversed(numbers)))
