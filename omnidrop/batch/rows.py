"""The rows of a batch: one question about one clip each, read from a file or made of clips."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omnidrop.clip.options import ClipOptions
from omnidrop.errors import UsageError, printable
from omnidrop.evaluation.question_files import ASKED, Line, read_lines
from omnidrop.evaluation.table_files import PARQUET

#: Suffixes of files of questions.
TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", *PARQUET)


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


def read_rows(
    path: Path,
    *,
    folder: Path | None = None,
    questions: Sequence[str] = (),
    choices: Sequence[str] = (),
) -> list[Row]:
    """Read a file of questions; `omnidrop.evaluation.question_files` describes its fields.

    Parameters
    ----------
    path : Path
        JSONL, CSV, TSV or Parquet, told apart by the suffix.
    folder : Path, optional
        That the clips are relative to; default the file's.
    questions : sequence of str
        Asked of each row that has no question.
    choices : sequence of str
        For rows that have none.

    Raises
    ------
    UsageError
        If a row is not valid; names line and column.
    MediaError
        If the file cannot be read.
    """
    base = path.parent if folder is None else folder
    rows: list[Row] = []
    lines: dict[str, str] = {}
    for line in read_lines(path, ASKED, "Check the path."):
        asked = [line] if line.has("question") or not questions else _asked(line, questions)
        for one in asked:
            row = _row(one, base, tuple(choices))
            if row.id in lines:
                if not one.has("id"):
                    continue  # the same question twice is one question
                raise UsageError(
                    f"{line.where}: id {printable(row.id)!r} is used twice; it is that of "
                    f"{lines[row.id].lower()} too.",
                    path=path,
                )
            lines[row.id] = line.where
            rows.append(row)
    if not rows:
        raise UsageError("The file holds no question.", path=path)
    return rows


def rows_of(
    clips: Iterable[Path],
    questions: Sequence[str],
    *,
    choices: Sequence[str] = (),
    start: float | None = None,
    end: float | None = None,
) -> list[Row]:
    """Return a row for every question about every clip.

    Parameters
    ----------
    clips : iterable of Path
    questions : sequence of str
        At least one.
    choices : sequence of str
    start, end : float, optional
        Span in seconds.
    """
    if not questions:
        raise UsageError("There is no question about the clips.", hint='Add one: -q "What plays?"')
    found: dict[str, Row] = {}
    for clip in clips:
        for question in questions:
            values = {"clip": str(clip), "question": question, "start": start, "end": end}
            row = _row(Line(clip, 1, values), Path(), tuple(choices))
            found.setdefault(row.id, row)
    return list(found.values())


def _asked(line: Line, questions: Sequence[str]) -> list[Line]:
    """Return a line without a question with each of these."""
    found = []
    for number, question in enumerate(questions, 1):
        values = {**line.values, "question": question}
        if line.has("id") and len(questions) > 1:
            values["id"] = f"{line.text('id')}-{number}"
        found.append(replace(line, values=values))
    return found


def _row(line: Line, base: Path, default: tuple[str, ...]) -> Row:
    clip, question = line.clip(), line.text("question")
    choices = line.choices(most=sys.maxsize) or default
    start, end = line.span()
    extra = line.extra(ASKED)
    return Row(line.id(choices), base / clip, question, choices, start, end, extra)
