"""What `omnidrop batch` is given: files of questions, clips, folders and globs."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omnidrop.errors import UsageError
from omnidrop_cli.options.clips import (
    expand_folders,
    is_clip_name,
    is_url,
    no_such_file,
    url_error,
)
from omnidrop_cli.options.parsing import parse_choices

if TYPE_CHECKING:
    from omnidrop.batch.rows import Row


def read_sources(
    sources: Sequence[Path], questions: Sequence[str], choices: str | None, *, recursive: bool
) -> tuple[list[Row], list[str]]:
    """Return the rows of a file of questions, or of clips and questions; and notices.

    Parameters
    ----------
    sources : sequence of Path
        One file of questions, or any number of clips, folders and globs.
    questions : sequence of str
        Asked of clips, and of rows that have no question.
    choices : str or None
        For rows that have none.
    recursive : bool
        Whether folders below a folder count.

    Raises
    ------
    UsageError
        If a row is not valid, there is no question, or there are several files of questions.
    MediaError
        If a file or a clip is not there, or cannot be read.
    """
    from omnidrop.batch.rows import TABLES, read_rows, rows_of

    picks = () if choices is None else parse_choices(choices)
    tables = [path for path in sources if path.suffix.lower() in TABLES and not path.is_dir()]
    if tables:
        if len(sources) > 1:
            raise UsageError(
                "A file of questions stands alone.",
                path=tables[0],
                hint="Join the files, or run one after another.",
            )
        return read_rows(tables[0], questions=questions, choices=picks), []
    first = sources[0]
    if len(sources) == 1 and not questions and first.is_file() and not is_clip_name(first.name):
        return read_rows(first, choices=picks), []  # JSONL by another name
    if not questions:
        _refuse_without_question(first)
    clips, notices = expand_folders(_expanded(sources), recursive=recursive)
    return rows_of(clips, questions, choices=picks), notices


def _expanded(sources: Sequence[Path]) -> list[Path]:
    """Put the files that a glob names in its place; a file of that very name goes before."""
    found: list[Path] = []
    for source in sources:
        if source.exists():
            found.append(source)
            continue
        if is_url(str(source)):
            raise url_error(str(source))
        named = sorted(glob.glob(str(source), recursive=True))
        if not named:
            raise no_such_file(source)
        found += map(Path, named)
    return list(dict.fromkeys(found))


def _refuse_without_question(source: Path) -> None:
    if not source.exists() and not glob.has_magic(str(source)):
        raise no_such_file(source)
    raise UsageError(
        "There is no question about the clips.", path=source, hint='Add one: -q "What plays?"'
    )
