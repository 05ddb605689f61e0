"""Files of questions, for `omnidrop eval` and `omnidrop batch` alike: JSONL, CSV, TSV or Parquet.

    {"id": "a1", "video": "clips/a.mp4", "question": "What plays first?",
     "choices": ["piano", "flute"], "answer": "piano", "category": "sound"}

The clip may also be called `clip`. All but it and `question` are optional, and so is `answer` where
no answer is judged. `id` is made from the other fields if it is left out. `start` and `end` are
seconds or hh:mm:ss; `choices` is a list, or A,B,C as a text. `groups` is an object of further
labels that a summary splits by. `evidence`, a list of [start, end] in seconds, says when the answer
can be seen or heard. Any other field is kept in `Item.extra`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnidrop.errors import UsageError, printable
from omnidrop.evaluation.items import LETTERS, Item, chosen_answer
from omnidrop.evaluation.table_files import PARQUET, table_rows
from omnidrop.parsing import seconds_of, split_choices

#: Fields of a question about a clip, and those of the right answer.
ASKED = ("id", "video", "clip", "question", "choices", "start", "end")
FIELDS = (*ASKED, "answer", "category", "groups", "evidence")


def read_items(path: Path, base: Path, hint: str = "Name a file of questions.") -> list[Item]:
    """Read every question of a file.

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
    found: dict[str, Item] = {}
    items = []
    for line in read_lines(path, FIELDS, hint):
        item = _item(line, base)
        if not line.has("id") and item.id in found:
            continue  # the same question twice is one question
        found[item.id] = item
        items.append(item)
    return items


def read_lines(
    path: Path, known: tuple[str, ...], hint: str = "Name a file of questions."
) -> Iterator[Line]:
    """Yield the lines of a file of questions.

    Parameters
    ----------
    path : Path
    known : tuple of str
        Fields that have a meaning; one that looks like a misspelt one of them is refused.
    hint : str
        Remedy named in the error when the file cannot be read.

    Raises
    ------
    UsageError, MediaError
        As `read_items`.
    """
    for number, values in table_rows(path, hint):
        line = Line(path, number, values)
        line.check_names(known)
        yield line


@dataclass(frozen=True)
class Line:
    """One line of the file, read field by field; every error names line and field."""

    path: Path
    line: int
    values: dict[str, Any]

    @property
    def where(self) -> str:
        """The line as an error names it."""
        return f"{'Row' if self.path.suffix.lower() in PARQUET else 'Line'} {self.line}"

    def error(self, name: str, what: str) -> UsageError:
        """Return an error about a field."""
        return UsageError(f"{self.where}: {name} {what}.", path=self.path)

    def has(self, name: str) -> bool:
        """Whether a field is there and not empty."""
        return self.values.get(name) not in (None, "")

    def check_names(self, known: tuple[str, ...]) -> None:
        """Refuse a field that looks like a misspelt known one."""
        there = {name for name in known if name in self.values}
        if there & {"video", "clip"}:
            there |= {"video", "clip"}
        for name in self.values:
            if name in known:
                continue
            close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.8)
            if close and close[0] not in there:
                raise UsageError(
                    f"{self.where}: unknown field {printable(name)!r}.",
                    path=self.path,
                    hint=f"Did you mean {close[0]}?",
                )

    def clip(self) -> str:
        """Return the clip as the file names it, by `video` or `clip`."""
        if self.has("clip"):
            if self.has("video"):
                raise self.error("video", "and clip are both given")
            return self.text("clip")
        return self.text("video")

    def id(self, choices: tuple[str, ...]) -> str:
        """Return the id; without one, a name made from clip, question, choices and span."""
        if self.has("id"):
            return self.text("id")
        key = json.dumps([self.clip(), self.text("question"), choices, *self.span()])
        return hashlib.sha256(key.encode()).hexdigest()[:12]

    def text(self, name: str) -> str:
        """Return a required text; numbers count as text, except as the name of a clip."""
        value = self.values.get(name)
        is_clip = name in ("video", "clip")
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not is_clip:
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
        if value is None or value == "":
            return None
        if isinstance(value, str):
            value, text = seconds_of(value), value
            if value is None:
                raise self.error(name, f"{printable(text)!r} is not a time like 75 or 1:15")
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

    def choices(self, most: int = len(LETTERS)) -> tuple[str, ...]:
        """Return the choices, at most so many; empty for a free answer."""
        given = self.values.get("choices") or ()
        if isinstance(given, str):
            given = split_choices(given)
        if not isinstance(given, (list, tuple)) or not all(isinstance(c, str) for c in given):
            raise self.error("choices", "is not a list of texts")
        choices = tuple(choice.strip() for choice in given)
        if choices and not 2 <= len(choices) <= most:
            raise self.error("choices", f"holds {len(choices)}, not 2 to {most}")
        if not all(choices) or len(set(choices)) < len(choices):
            raise self.error("choices", "holds an empty or a repeated one")
        return choices

    def groups(self) -> dict[str, str]:
        """Return the further labels."""
        groups = _parsed(self.values.get("groups")) or {}
        if not isinstance(groups, dict) or not all(isinstance(v, str) for v in groups.values()):
            raise self.error("groups", "is not an object of texts")
        return groups

    def evidence(self) -> tuple[tuple[float, float], ...]:
        """Return the spans of the evidence."""
        given = _parsed(self.values.get("evidence")) or ()
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

    def extra(self, known: tuple[str, ...]) -> dict[str, Any]:
        """Return the fields that are not known."""
        return {name: value for name, value in self.values.items() if name not in known}


def _parsed(value: Any) -> Any:
    """Return what a cell of a CSV file holds as JSON; any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _item(line: Line, base: Path) -> Item:
    choices = line.choices()
    start, end = line.span()
    if not line.has("answer"):
        raise UsageError(
            f"{line.where}: answer is missing.",
            path=line.path,
            hint="Without one nothing can be judged; `omnidrop batch` asks without.",
        )
    return Item(
        id=line.id(choices),
        video=base / line.clip(),
        question=line.text("question"),
        answer=chosen_answer(choices, line.text("answer"), line.where, line.path),
        choices=choices,
        category=line.optional_text("category"),
        start=start,
        end=end,
        groups=line.groups(),
        evidence=line.evidence(),
        extra=line.extra(FIELDS),
    )
