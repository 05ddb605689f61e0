"""Local copies of published benchmarks, as their publishers lay them out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from omnidrop.evaluation.sets import QuestionSet

#: Format name → what reads a folder of it.
LAYOUTS: dict[str, Callable[[Path, Path | None], QuestionSet]] = {}
