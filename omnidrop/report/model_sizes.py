"""A model's sizes as plain values, for reports and estimates."""

from __future__ import annotations

from dataclasses import MISSING, asdict, fields
from fractions import Fraction
from typing import Any

from omnidrop.shapes import AudioShape, Experts, Projections, TextShape, VisionShape


def described(value: Any) -> dict[str, Any]:
    """Return a dataclass as plain values for a report.

    Fields of shapes at their default are left out, so that a report lists only what differs.
    """
    found: dict[str, Any] = {}
    for item in fields(value):
        part = getattr(value, item.name)
        if isinstance(part, TextShape | VisionShape | AudioShape):
            found[item.name] = described(part)
        elif not _is_default(value, item.name):
            found[item.name] = _plain(part)
    return found


def _is_default(value: Any, name: str) -> bool:
    if not isinstance(value, TextShape | VisionShape | AudioShape):
        return False
    default = next(item.default for item in fields(value) if item.name == name)
    return default is not MISSING and getattr(value, name) == default


def _plain(part: Any) -> Any:
    if isinstance(part, Experts | Projections):
        return asdict(part)
    return float(part) if isinstance(part, Fraction) else part
