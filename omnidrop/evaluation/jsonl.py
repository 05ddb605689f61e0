"""JSONL question sets: one JSON object per line.

    {"id": "a1", "video": "clips/a.mp4", "question": "What plays first?",
     "choices": ["piano", "flute"], "answer": "piano", "category": "sound"}

`choices`, `category`, `start` and `end` (seconds) are optional, and so is `groups`, an object of
further labels that a summary splits by. `evidence`, a list of [start, end] in seconds, says when
the answer can be seen or heard. Any other field is kept in `Item.extra`.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnidrop.errors import UsageError
from omnidrop.evaluation.items import LETTERS, Item, chosen_answer, read_text

#: Fields with a meaning; all others go to `Item.extra`.
FIELDS = (
    "id",
    "video",
    "question",
    "choices",
    "answer",
    "category",
    "start",
    "end",
    "groups",
    "evidence",
)


def rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line number and object of every line of a JSONL file's text."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as problem:
            raise UsageError(f"Line {number} is not JSON: {problem}.", path=path) from problem
        if not isinstance(row, dict):
            raise UsageError(f"Line {number} is not a JSON object.", path=path)
        yield number, row


def read_items(path: Path, base: Path, hint: str = "Name a JSONL file.") -> list[Item]:
    """Read every question of a JSONL file.

    Parameters
    ----------
    path : Path
    base : Path
        Folder that `video` is relative to.
    hint : str
        Remedy named in the error when the file cannot be read.

    Raises
    ------
    UsageError
        If a line is wrong; names line and field.
    MediaError
        If the file cannot be read.
    """
    return [_item(_Row(path, line, row), base) for line, row in rows(path, read_text(path, hint))]


@dataclass(frozen=True)
class _Row:
    """One line of the file, read field by field; every error names line and field."""

    path: Path
    line: int
    values: dict[str, Any]

    def error(self, name: str, what: str) -> UsageError:
        return UsageError(f"Line {self.line}: {name} {what}.", path=self.path)

    def check_names(self) -> None:
        """Refuse a field that looks like a misspelt known one."""
        for name in self.values:
            if name in FIELDS:
                continue
            close = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.8)
            if close and close[0] not in self.values:
                raise UsageError(
                    f"Line {self.line}: unknown field {name!r}.",
                    path=self.path,
                    hint=f"Did you mean {close[0]}?",
                )

    def text(self, name: str) -> str:
        """Return a required text; numbers count as text, except as the name of a clip."""
        value = self.values.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "video":
            value = f"{value}"
        if value is None:
            raise self.error(name, "is missing")
        if not isinstance(value, str) or not value.strip():
            raise self.error(name, "is not a text")
        return value.strip()

    def optional_text(self, name: str) -> str | None:
        return None if self.values.get(name) is None else self.text(name)

    def seconds(self, name: str) -> float | None:
        """Return a time in seconds, or None where there is none."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(name, "is not a number of seconds")
        if not math.isfinite(value) or value < 0:
            raise self.error(name, "is not a time")
        return float(value)

    def span(self) -> tuple[float | None, float | None]:
        """Return start and end."""
        start, end = self.seconds("start"), self.seconds("end")
        if end is not None and end <= (start or 0.0):
            raise self.error("end", "is not after start")
        return start, end

    def choices(self) -> tuple[str, ...]:
        """Return the choices, empty for a free answer."""
        given = self.values.get("choices") or ()
        if not isinstance(given, (list, tuple)) or not all(isinstance(c, str) for c in given):
            raise self.error("choices", "is not a list of texts")
        choices = tuple(choice.strip() for choice in given)
        if choices and not 2 <= len(choices) <= len(LETTERS):
            raise self.error("choices", f"holds {len(choices)}, not 2 to {len(LETTERS)}")
        if not all(choices) or len(set(choices)) < len(choices):
            raise self.error("choices", "holds an empty or a repeated one")
        return choices

    def groups(self) -> dict[str, str]:
        """Return the further labels."""
        groups = self.values.get("groups") or {}
        if not isinstance(groups, dict) or not all(isinstance(v, str) for v in groups.values()):
            raise self.error("groups", "is not an object of texts")
        return groups

    def evidence(self) -> tuple[tuple[float, float], ...]:
        """Return the spans of the evidence."""
        given = self.values.get("evidence") or ()
        if not isinstance(given, (list, tuple)):
            raise self.error("evidence", "is not a list of [start, end]")
        spans = []
        for span in given:
            try:
                start, end = map(float, span)
            except (TypeError, ValueError):
                raise self.error("evidence", "is not a list of [start, end]") from None
            if not (math.isfinite(end) and 0 <= start < end):
                raise self.error("evidence", f"holds {start:g} to {end:g}, which is no time span")
            spans.append((start, end))
        return tuple(spans)

    def extra(self) -> dict[str, Any]:
        return {name: value for name, value in self.values.items() if name not in FIELDS}


def _item(row: _Row, base: Path) -> Item:
    row.check_names()
    choices = row.choices()
    start, end = row.span()
    return Item(
        id=row.text("id"),
        video=base / row.text("video"),
        question=row.text("question"),
        answer=chosen_answer(choices, row.text("answer"), f"Line {row.line}", row.path),
        choices=choices,
        category=row.optional_text("category"),
        start=start,
        end=end,
        groups=row.groups(),
        evidence=row.evidence(),
        extra=row.extra(),
    )
