"""The two files of `omnidrop batch`: the manifest of questions, and the answers."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnidrop.evaluation.jsonl import rows

from omnidrop.errors import MediaError, UsageError
from omnidrop.files import to_json
from omnidrop_cli.options.common import SpanFlags
from omnidrop_cli.options.parsing import parse_choices, parse_time

if TYPE_CHECKING:
    from omnidrop_cli.commands.answering import Outcome, Question

COLUMNS = {"id", "clip", "question", "choices", "start", "end"}


def read_manifest(path: Path, choices: str | None = None) -> list[Question]:
    """Return the rows of a manifest.

    Parameters
    ----------
    path : Path
        JSONL, or CSV with a header line if it ends in .csv.
    choices : str, optional
        For rows that give none.

    Raises
    ------
    MediaError
        If it cannot be read.
    UsageError
        If a row is not valid; names the line. Nothing has been answered by then.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise UsageError("The manifest is not UTF-8 text.", path=path) from problem
    except OSError as problem:
        raise MediaError(
            f"The manifest cannot be read ({problem.strerror}).", path=path, hint="Check the path."
        ) from problem
    questions, ids = [], set()
    read = _csv_rows if path.suffix.lower() == ".csv" else rows
    for line, row in read(path, text):
        question = _question(path, line, row, choices)
        if question.id in ids:
            if row.get("id") in (None, ""):
                continue  # the same question twice is one question
            raise UsageError(f"Line {line}: id {question.id!r} is used twice.", path=path)
        ids.add(question.id)
        questions.append(question)
    if not questions:
        raise UsageError("The manifest holds no question.", path=path)
    return questions


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    # StringIO splits at line feeds and carriage returns alone; str.splitlines also at U+2028, NEL,
    # VT and FF, which are text.
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="")
    for row in reader:
        if "" in row or None in row.values():
            raise UsageError(
                f"Line {reader.line_num} has more or fewer cells than the header.",
                path=path,
                hint="Put texts with commas in double quotes.",
            )
        yield reader.line_num, dict(row)


def _question(path: Path, line: int, row: dict[str, Any], choices: str | None) -> Question:
    from omnidrop_cli.commands.answering import Question

    unknown = set(row) - COLUMNS
    if unknown:
        raise UsageError(
            f"Line {line}: unknown column {sorted(unknown)[0]!r}.",
            path=path,
            hint=f"Known: {', '.join(sorted(COLUMNS))}.",
        )
    for name in ("clip", "question"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise UsageError(f"Line {line}: {name} is missing.", path=path)
    given = row.get("choices") or choices or ()
    try:
        picks = parse_choices(given) if isinstance(given, str) else tuple(str(c) for c in given)
        span = SpanFlags(*(_time(row.get(name)) for name in ("start", "end")))
    except (UsageError, TypeError) as problem:
        raise UsageError(f"Line {line}: {problem}", path=path) from problem
    clip = path.parent / row["clip"]
    key = json.dumps([row["clip"], row["question"], picks, span.start, span.end])
    name = str(row.get("id") or hashlib.sha256(key.encode()).hexdigest()[:12])
    return Question(clip, row["question"].strip(), picks, span, name)


def _time(value: Any) -> float | None:
    return None if value in (None, "") else parse_time(value)


def done_before(path: Path) -> dict[str, bool]:
    """Return the ids in an output file, and whether each was answered in the end.

    Raises
    ------
    UsageError
        If the file is there but holds something else; it is not touched.
    """
    if not path.exists():
        if not path.parent.is_dir():
            raise UsageError("The folder of --out does not exist.", path=path.parent)
        return {}
    found: dict[str, bool] = {}
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError("The output file cannot be read.", path=path) from problem
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            found[str(row["id"])] = row["schema"].startswith("omnidrop.answer/")
        except (ValueError, KeyError, TypeError, AttributeError):
            if number == len(lines):
                continue  # the last line of a call that was killed; it is asked again
            raise UsageError(
                f"Line {number} of the output is not an answer.",
                path=path,
                hint="Give --out another file.",
            ) from None
    return found


@contextmanager
def open_output(path: Path) -> Iterator[Callable[[Outcome], None]]:
    """Open an output file for adding; yields what writes one outcome, whole, to the disk."""
    try:
        stream = path.open("a+b")
    except OSError as problem:
        raise UsageError(
            f"The output cannot be written ({problem.strerror}).", path=path
        ) from problem
    with stream:
        _drop_half_line(stream)

        def write(outcome: Outcome) -> None:
            answer = outcome.answer
            body = answer.to_dict() if answer is not None else outcome.failure()
            line = {"schema": body.pop("schema"), "id": outcome.question.id} | body
            if answer is not None:
                line["clip"] = str(outcome.question.clip)
            stream.write((to_json(line) + "\n").encode("utf-8"))
            stream.flush()

        yield write


def _drop_half_line(stream: Any) -> None:
    """Cut off a last line without its end: the call that wrote it was killed."""
    stream.seek(0)
    held = stream.read()
    if held and not held.endswith(b"\n"):
        stream.truncate(held.rfind(b"\n") + 1)
    stream.seek(0, 2)
