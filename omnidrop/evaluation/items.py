"""Questions about clips: the values every question set is read into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omnidrop.clip.options import ClipOptions
from omnidrop.errors import MediaError, UsageError, printable
from omnidrop.models.world import Style

#: Letters of the choices, in order.
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
    evidence : tuple of (float, float)
        When the answer can be seen or heard, in seconds of the file; empty if that is not known.
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
    evidence: tuple[tuple[float, float], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def clip_options(self, base: ClipOptions) -> ClipOptions:
        """Return `base` with the question's own span, if it has one."""
        if self.start is None and self.end is None:
            return base
        return replace(base, start=self.start, end=self.end)


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
    style : {"plain", "words", "letters"} or None
        How this set's questions are meant to be put; None leaves it to the model.
    apart : tuple of (str, str)
        Groups, as (name, label), that results also show separately.
    """

    name: str
    items: tuple[Item, ...]
    source: Path
    note: str = ""
    style: Style | None = None
    apart: tuple[tuple[str, str], ...] = ()

    @property
    def videos(self) -> tuple[Path, ...]:
        """Return the clips, each once, in the order they first appear."""
        return tuple(dict.fromkeys(item.video for item in self.items))

    def part(self, items: Iterable[Item]) -> QuestionSet:
        """Return the same set with only these questions."""
        return replace(self, items=tuple(items))


def read_text(path: Path, hint: str = "Check that it exists and can be read.") -> str:
    """Return the text of a question file.

    Parameters
    ----------
    path : Path
    hint : str
        Remedy named in the error when the file cannot be read.

    Raises
    ------
    UsageError
        If it is not UTF-8.
    MediaError
        If it cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError("The question set is not UTF-8 text.", path=path) from error
    except OSError as error:
        raise MediaError(
            f"The question set cannot be read ({error.strerror}).", path=path, hint=hint
        ) from error


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
