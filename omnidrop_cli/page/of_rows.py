"""Pages of the clips in a file of answers: those that are there, and those made on demand."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnidrop import format as fmt
from omnidrop.errors import OmniDropError, UsageError, printable
from omnidrop.evaluation.records import key_of
from omnidrop.evaluation.report.rows import ANSWERED
from omnidrop.files import write_whole
from omnidrop.report.reading import answer_of, is_whole
from omnidrop_cli.page.charts import bar
from omnidrop_cli.page.details import facts
from omnidrop_cli.page.frame import document
from omnidrop_cli.page.html import Markup, folded, join, table, tag

if TYPE_CHECKING:
    from omnidrop.evaluation.report.collection import Collection
    from omnidrop.evaluation.report.rows import Row
    from omnidrop_cli.commands.answering import Outcome

#: Pages of a folder that are looked into, and bytes of the largest.
MOST_PAGES, LARGEST = 2000, 64_000_000
#: How a page of answers holds its data.
_MARK = b'<script type="application/json" id="answers">'

Progress = Callable[[str, int, int | None], None]


def saved_pages(
    found: Collection, numbers: Iterable[int], folders: Sequence[Path]
) -> dict[int, Path]:
    """Return the page of each row whose clip has one in these folders.

    A page is known by the clips in its own data, whatever its name. Of several for one clip the
    newest counts.
    """
    by_clip: dict[str, Path] = {}
    for folder in folders:
        for page in _pages_in(folder):
            by_clip |= dict.fromkeys(_clips_of(page), page)
    if not by_clip:
        return {}
    places = {number: _place(found.row(number).clip) for number in numbers}
    return {number: by_clip[place] for number, place in places.items() if place in by_clip}


def write_pages(
    found: Collection, numbers: Iterable[int], folder: Path, *, force: bool, progress: Progress
) -> dict[int, Path]:
    """Write a page for each clip and settings; return the page of each row.

    Parameters
    ----------
    found : Collection
    numbers : iterable of int
        Rows that get a page.
    folder : Path
        Created if it does not exist.
    force : bool
        Replace pages that are there; else they are kept and linked.
    progress : callable
        Receives what is done, how many pages, and of how many.

    Raises
    ------
    UsageError
        If the folder or a page cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UsageError(
            f"The folder cannot be made ({problem.strerror}).", path=folder
        ) from problem
    by_page: dict[tuple[int, int], list[int]] = {}
    for number in numbers:
        by_page.setdefault((found.clip[number], found.group[number]), []).append(number)
    links: dict[int, Path] = {}
    for done, part in enumerate(by_page.values()):
        progress("write pages", done, len(by_page))
        rows = [found.row(number) for number in part]
        page = folder / _name(rows[0])
        if force or not page.exists():
            text = _page(rows, [found.document(number) for number in part], page)
            write_whole(page, text, force=True)
        links |= dict.fromkeys(part, page)
    return links


def _name(row: Row) -> str:
    """Return the file name of a page: the clip's, and what tells its settings from others."""
    clip = row.clip.replace("\\", "/")
    stem = re.sub(r"[^\w.-]+", "-", Path(clip).stem).strip("-.")[:60] or "clip"
    return f"{stem}-{key_of(clip, row.group)[:8]}.html"


def _page(rows: Sequence[Row], documents: Sequence[Mapping[str, Any]], page: Path) -> str:
    """Return the page of a clip: in full where every answer is whole, else what the rows tell."""
    pairs = list(zip(rows, documents, strict=True))
    if all(is_whole(d) or r.status != ANSWERED for r, d in pairs) and any(
        is_whole(d) for _, d in pairs
    ):
        with suppress(ValueError):  # of a version that wrote other things: then in brief
            return _full([_outcome(row, document) for row, document in pairs], page)
    return _brief(rows, documents)


def _full(outcomes: list[Outcome], page: Path) -> str:
    from omnidrop_cli.files.stdout import document as answers
    from omnidrop_cli.page.answers import answers_page

    data = answers(outcomes, len(outcomes) == 1)
    return answers_page(outcomes, page, data, embed=False, notify=lambda notice: None)


def _outcome(row: Row, found: Mapping[str, Any]) -> Outcome:
    from omnidrop_cli.commands.answering import Outcome, Question

    question = Question(Path(row.clip), row.question, id=row.id)
    if row.status != ANSWERED:
        return Outcome(question, problem=OmniDropError(row.error))
    return Outcome(question, answer=answer_of(found))


def _brief(rows: Sequence[Row], documents: Sequence[Mapping[str, Any]]) -> str:
    clip = printable(rows[0].clip)
    sections = [_section(row, found) for row, found in zip(rows, documents, strict=True)]
    head = tag("header", tag("h1", clip.replace("\\", "/").rpartition("/")[2], dir="auto"))
    path = tag("p", clip, class_="muted small", dir="auto")
    body = join([head, path, *sections], "\n")
    return document(f"{clip} · omnidrop", body, {"rows": list(documents)}, "rows")


def _section(row: Row, found: Mapping[str, Any]) -> Markup:
    head = tag("h2", row.question or row.id, dir="auto", class_="question")
    if row.status != ANSWERED:
        said = tag("p", f"{row.status}: {row.error}", class_="warn", dir="auto")
    elif row.answer.strip():
        said = tag("p", row.answer, class_="answer long", dir="auto")
    else:
        said = tag("p", "The model ended without a word.", class_="answer none")
    parts = [head, said]
    if row.probability is not None:
        sure = tag("strong", fmt.share(row.probability, 0))
        parts.append(tag("p", bar(row.probability), tag("span", sure, " sure"), class_="sure"))
    parts += [facts(_facts(row)), folded("All values", _values(found))]
    return tag("article", *parts)


def _facts(row: Row) -> Iterator[tuple[str, object]]:
    if row.expected:
        yield "Expected", row.expected
    if row.kept is not None:
        yield "Kept", fmt.share(row.kept)
    if row.asked is not None:
        yield "Asked for", fmt.share(row.asked)
    if row.seconds is not None:
        yield "Time", fmt.duration(row.seconds)
    for name, value in (("Method", row.method), ("Model", row.model), ("Category", row.category)):
        if value:
            yield name, value


def _values(found: Mapping[str, Any]) -> Markup:
    rows = [(name, fmt.setting(value)) for name, value in found.items()]
    return table(("name", "value"), rows, caption="What the row holds", kind="")


def _pages_in(folder: Path) -> list[Path]:
    """Return the pages of a folder, the oldest first."""
    with suppress(OSError):
        entries = [e for e in os.scandir(folder) if e.name.lower().endswith(".html")]
        fit = [e for e in entries if e.is_file() and e.stat().st_size <= LARGEST]
        fit.sort(key=lambda e: e.stat().st_mtime)
        return [Path(e.path) for e in fit[-MOST_PAGES:]]
    return []


def _clips_of(page: Path) -> set[str]:
    """Return the places of the clips in a page of answers; none if it is another page."""
    with suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
        _, mark, rest = page.read_bytes().rpartition(_MARK)
        if mark:
            found = json.loads(rest.partition(b"</script>")[0])
            answers = found.get("answers", [found])
            return {_place(answer["trace"]["clip"]["path"]) for answer in answers}
    return set()


def _place(clip: str) -> str:
    return os.path.abspath(clip) if clip else ""


__all__ = ["saved_pages", "write_pages"]
