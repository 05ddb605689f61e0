"""Question sets: what is asked about which clip, and what the right answer is.

A set is a JSONL file, the built-in `avsynth`, or a local copy of a published benchmark named as
FORMAT:FOLDER. One line of JSONL is one question:

    {"id": "a1", "video": "clips/a.mp4", "question": "What plays first?",
     "choices": ["piano", "flute"], "answer": "piano", "category": "sound"}

`choices`, `category`, `start` and `end` (seconds) are optional, and so is `groups`, an object of
further labels that a summary splits by. Any other field is kept in `Item.extra`.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from omnidrop.errors import MediaError, UsageError, printable

#: How a question with choices is put: as it is, or with lettered choices and an instruction.
Style = Literal["plain", "letters"]

AVSYNTH = "avsynth"
FIELDS = ("id", "video", "question", "choices", "answer", "category", "start", "end", "groups")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Item:
    """One question about one clip.

    Attributes
    ----------
    id : str
        Unique in its set.
    video : Path
        The clip.
    question : str
        As it stands in the set, choices not included.
    answer : str
        The right answer; one of `choices` where there are any.
    choices : tuple of str
        Empty for a free answer.
    category : str or None
        What summaries split by first.
    start, end : float or None
        Span of the clip in seconds.
    groups : mapping of str to str
        Further labels that summaries split by, such as {"evidence": "sparse"}.
    extra : mapping
        Everything else the set says about the question.
    """

    id: str
    video: Path
    question: str
    answer: str
    choices: tuple[str, ...] = ()
    category: str | None = None
    start: float | None = None
    end: float | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class QuestionSet:
    """Questions that belong together.

    Attributes
    ----------
    name : str
    items : tuple of Item
        In the set's order.
    source : Path
        The file the questions came from.
    note : str
        What a reader of results should know; may be empty.
    style : {"plain", "letters"}
        How this set's questions are meant to be put to a model.
    apart : tuple of (str, str)
        Groups, as (name, label), that results show beside the whole.
    """

    name: str
    items: tuple[Item, ...]
    source: Path
    note: str = ""
    style: Style = "letters"
    apart: tuple[tuple[str, str], ...] = ()

    @property
    def videos(self) -> tuple[Path, ...]:
        """Return the clips, each once, in the order they first appear."""
        return tuple(dict.fromkeys(item.video for item in self.items))

    def part(self, items: Iterable[Item]) -> QuestionSet:
        """Return the same set with only these questions."""
        return replace(self, items=tuple(items))


def read_set(
    source: str | Path, *, videos: str | Path | None = None, limit: int | None = None
) -> QuestionSet:
    """Read a question set.

    Parameters
    ----------
    source : str or Path
        A JSONL file, "avsynth", or FORMAT:PATH with a format of `formats()`.
    videos : path, optional
        Folder of the clips; by default they are where the set's layout has them, relative to the
        JSONL file's folder.
    limit : int, optional
        Take only the first questions.

    Raises
    ------
    UsageError
        If the set cannot be understood; names line and field. Also if the clips of `avsynth` have
        not been made; names the command.
    MediaError
        If its file cannot be read, or none of its clips is there.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"A limit of {limit} leaves no question.", hint="Give 1 or more.")
    folder = None if videos is None else Path(videos)
    if folder is not None and not folder.is_dir():
        raise MediaError("There is no such folder of clips.", path=folder, hint="Check --videos.")
    kind, colon, rest = str(source).partition(":")
    if str(source) == AVSYNTH:
        found = _avsynth(None, folder)
    elif colon and kind in formats():
        found = formats()[kind](Path(rest), folder)
    else:
        path = Path(source)
        found = read_jsonl(path, folder)
    _check(found)
    return found if limit is None else found.part(found.items[:limit])


def formats() -> dict[str, Callable[[Path, Path | None], QuestionSet]]:
    """Return the layouts that FORMAT:PATH can name, each with what reads it."""
    from omnidrop.evaluation.benchmarks import LAYOUTS

    return {AVSYNTH: _avsynth, **LAYOUTS}


def read_jsonl(path: Path, videos: Path | None = None) -> QuestionSet:
    """Read a JSONL question set; see the module's docstring for its fields."""
    base = videos or path.parent
    return QuestionSet(path.stem, tuple(_items(path, base)), path)


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


def read_text(path: Path) -> str:
    """Return a set's file as text."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise UsageError("The question set is not UTF-8 text.", path=path) from problem
    except OSError as problem:
        known = ", ".join([AVSYNTH, *(f"{name}:FOLDER" for name in formats())])
        raise MediaError(
            f"The question set cannot be read ({problem.strerror}).",
            path=path,
            hint=f"Name a JSONL file or one of: {known}.",
        ) from problem


def chosen_answer(choices: tuple[str, ...], answer: str, where: str, path: Path) -> str:
    """Return the right choice, named in the set by its text or by its letter.

    Raises
    ------
    UsageError
        If it is neither; `where` says which question.
    """
    if not choices or answer in choices:
        return answer
    if len(answer) == 1 and answer in LETTERS[: len(choices)]:
        return choices[LETTERS.index(answer)]
    raise UsageError(
        f"{where}: answer {printable(answer)!r} is none of the choices.",
        path=path,
        hint=f"Give one of the {len(choices)} choices, or its letter.",
    )


def _items(path: Path, base: Path) -> list[Item]:
    return [_item(path, line, row, base) for line, row in rows(path, read_text(path))]


def _item(path: Path, line: int, row: dict[str, Any], base: Path) -> Item:
    def wrong(name: str, what: str) -> UsageError:
        return UsageError(f"Line {line}: {name} {what}.", path=path)

    def text(name: str) -> str:
        value = row.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "video":
            value = f"{value}"
        if value is None:
            raise wrong(name, "is missing")
        if not isinstance(value, str) or not value.strip():
            raise wrong(name, "is not a text")
        return value.strip()

    def seconds(name: str) -> float | None:
        value = row.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong(name, "is not a number of seconds")
        if not math.isfinite(value) or value < 0:
            raise wrong(name, "is not a time")
        return float(value)

    for name in row:
        meant = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.8)
        if name not in FIELDS and meant and meant[0] not in row:
            raise UsageError(
                f"Line {line}: unknown field {name!r}.", path=path, hint=f"Did you mean {meant[0]}?"
            )
    given = row.get("choices") or ()
    if not isinstance(given, (list, tuple)) or not all(isinstance(c, str) for c in given):
        raise wrong("choices", "is not a list of texts")
    choices = tuple(choice.strip() for choice in given)
    if choices and not 2 <= len(choices) <= len(LETTERS):
        raise wrong("choices", f"holds {len(choices)}, not 2 to {len(LETTERS)}")
    if not all(choices) or len(set(choices)) < len(choices):
        raise wrong("choices", "holds an empty or a repeated one")
    start, end = seconds("start"), seconds("end")
    if end is not None and end <= (start or 0.0):
        raise wrong("end", "is not after start")
    groups = row.get("groups") or {}
    if not isinstance(groups, dict) or not all(isinstance(v, str) for v in groups.values()):
        raise wrong("groups", "is not an object of texts")
    return Item(
        id=text("id"),
        video=base / text("video"),
        question=text("question"),
        answer=chosen_answer(choices, text("answer"), f"Line {line}", path),
        choices=choices,
        category=None if row.get("category") is None else text("category"),
        start=start,
        end=end,
        groups=groups,
        extra={name: value for name, value in row.items() if name not in FIELDS},
    )


def _check(found: QuestionSet) -> None:
    if not found.items:
        raise UsageError("The question set holds no question.", path=found.source)
    seen: set[str] = set()
    for item in found.items:
        if item.id in seen:
            raise UsageError(f"id {printable(item.id)!r} is used twice.", path=found.source)
        seen.add(item.id)
    if not any(video.is_file() for video in found.videos):
        raise MediaError(
            f"None of the {len(found.videos)} clips of {found.name} is there.",
            path=found.videos[0],
            hint="Name their folder with --videos.",
        )


def avsynth_questions() -> Path:
    """Return the built-in questions: in an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    shipped = package / "_avsynth" / "test.jsonl"
    return shipped if shipped.is_file() else package.parent / "samples" / "avsynth" / "test.jsonl"


def _avsynth(folder: Path | None, videos: Path | None) -> QuestionSet:
    """Read AVSynth: the built-in questions, or those of a folder of rendered clips.

    The category is what a question needs (picture, sound, both); its evidence lies in short events
    ("sparse") or lasts ("long").
    """
    path, name = avsynth_questions(), AVSYNTH
    if folder is not None and (folder / "test.jsonl").is_file():
        own = folder / "test.jsonl"
        if own.read_bytes() != path.read_bytes():  # of other seeds: results are not the same set's
            path, name = own, f"{AVSYNTH}-{folder.resolve().name}"
    base = videos or folder or path.parent
    items = [_avsynth_item(item, base) for item in _items(path, base)]
    if not any(item.video.is_file() for item in items):
        raise UsageError(
            "The clips of avsynth are not there; they are made from seeds, not shipped.",
            path=base,
            hint="In a checkout of omnidrop, run `python samples/make_clips.py --out avsynth`, "
            "then `omnidrop eval avsynth --videos avsynth`.",
        )
    note = "Synthetic clips; answers of the demo model are words."
    return QuestionSet(name, tuple(items), path, note, "plain", (("evidence", "sparse"),))


def _avsynth_item(item: Item, base: Path) -> Item:
    extra = item.extra
    beside = base / item.video.name
    return replace(
        item,
        video=beside if not item.video.is_file() and beside.is_file() else item.video,
        category=str(extra.get("family", item.category)),
        groups={
            "evidence": "sparse" if extra.get("sparse") else "long",
            "wording": str(extra.get("wording", "seen")),
        },
        extra={**extra, "kind": item.category},
    )
