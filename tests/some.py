"""Some values of a parametrized test by default, and the others among the slow tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def some(values: Iterable[Any], kept: Callable[[Any], bool]) -> list[Any]:
    """Return the values; those that are not kept by default are marked slow.

    A value may be a tuple of several parameters' values.
    """
    return [value if kept(value) else _slow(value) for value in values]


def every(step: int, values: Iterable[Any]) -> list[Any]:
    """Return the values; all but each `step`-th are marked slow."""
    return [value if n % step == 0 else _slow(value) for n, value in enumerate(values)]


def _slow(value: Any) -> Any:
    parts = value if isinstance(value, tuple) else (value,)
    return pytest.param(*parts, marks=pytest.mark.slow)
