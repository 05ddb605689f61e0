"""The rows of a batch: one question about one clip each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omnidrop.clip.options import ClipOptions


@dataclass(frozen=True)
class Row:
    """One question about one clip.

    Attributes
    ----------
    id : str
        Unique among the rows that are asked together.
    clip : Path
        Where the clip is.
    question : str
    choices : tuple of str
        Empty for a free answer.
    start, end : float or None
        Span of the clip in seconds.
    extra : mapping
        Further columns of the file; they are carried through to the record.
    """

    id: str
    clip: Path
    question: str
    choices: tuple[str, ...] = ()
    start: float | None = None
    end: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def span(self) -> tuple[Path, float | None, float | None]:
        """Clip, start and end: rows that share them share an encoding."""
        return self.clip, self.start, self.end

    def clip_options(self, base: ClipOptions) -> ClipOptions:
        """Return `base` with the row's own span, if it has one."""
        if self.start is None and self.end is None:
            return base
        return replace(base, start=self.start, end=self.end)


def by_clip(rows: Iterable[Row]) -> list[list[Row]]:
    """Return the rows in groups that share clip and span, in the order they first appear."""
    groups: dict[tuple[Path, float | None, float | None], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.span, []).append(row)
    return list(groups.values())
