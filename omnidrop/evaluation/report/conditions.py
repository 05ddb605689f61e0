"""Which rows a report is about: conditions like `seconds>3`, patterns, and parts of a question."""

from __future__ import annotations

import fnmatch
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from omnidrop.errors import UsageError
from omnidrop.evaluation.report.rows import FAILED, Row, value_of

#: Names of a row that conditions and orders may use, besides those of its line.
NAMES = (
    "id",
    "clip",
    "question",
    "answer",
    "status",
    "cause",
    "error",
    "probability",
    "asked",
    "kept",
    "seconds",
    "right",
    "expected",
    "category",
    "method",
    "model",
)

_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_CONDITION = re.compile(r"^\s*([A-Za-z_][\w.\- ]*?)\s*(<=|>=|!=|=|<|>|~)\s*(.*?)\s*$", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """One condition: a name, how to compare, and with what.

    Attributes
    ----------
    name : str
        One of `NAMES`, or a name of the lines, dotted where it is nested (`trace.memory.host`).
    sign : {"=", "!=", "<", "<=", ">", ">=", "~"}
        `~` asks whether the text is part of the value, whatever the case.
    value : str
    """

    name: str
    sign: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read `seconds>3`.

        Raises
        ------
        UsageError
            If there is no name or no sign, or `<` and `>` compare with what is no number.
        """
        found = _CONDITION.match(text)
        if found is None:
            raise UsageError(
                f"{text!r} is no condition.",
                hint="Write a name, one of = != < <= > >= ~, and a value: seconds>3",
            )
        made = cls(*found.groups())
        if made.sign in _COMPARED and _as_number(made.value) is None:
            raise UsageError(f"{made.value!r} in {text!r} is not a number.", hint="Try seconds>3")
        return made

    def holds(self, row: Row, document: Mapping[str, Any]) -> bool:
        """Return whether a row fulfils it; a row without the value fulfils only `!=`."""
        found = lookup(row, document, self.name)
        if self.sign in _COMPARED:
            number = _as_number(found)
            wanted = _as_number(self.value)
            return number is not None and _COMPARED[self.sign](number, wanted)
        if self.sign == "~":
            return found is not None and self.value.casefold() in _as_text(found).casefold()
        return _equal(found, self.value) == (self.sign == "=")


@dataclass(frozen=True)
class Selection:
    """Which rows are shown.

    Attributes
    ----------
    where : tuple of Condition
        All must hold.
    failed : bool
        Only rows without an answer.
    clip : str
        Pattern with `*` and `?` for the clip's path or name; empty for any.
    question : str
        Part of the question, whatever the case; empty for any.
    """

    where: tuple[Condition, ...] = ()
    failed: bool = False
    clip: str = ""
    question: str = ""

    @property
    def everything(self) -> bool:
        """Whether no row is left out."""
        return not (self.where or self.failed or self.clip or self.question)

    def holds(self, row: Row, document: Mapping[str, Any]) -> bool:
        """Return whether a row is shown."""
        if self.failed and row.status != FAILED:
            return False
        if self.clip and not _like(row.clip, self.clip):
            return False
        if self.question and self.question.casefold() not in row.question.casefold():
            return False
        return all(condition.holds(row, document) for condition in self.where)

    def said(self) -> str:
        """Return the selection in words."""
        parts = ["failed"] if self.failed else []
        parts += [f"clip like {self.clip}"] if self.clip else []
        parts += [f"question with “{self.question}”"] if self.question else []
        parts += [f"{c.name} {c.sign} {c.value}" for c in self.where]
        return ", ".join(parts)


def lookup(row: Row, document: Mapping[str, Any], name: str) -> Any:
    """Return a row's value by name, else its line's; None if there is none."""
    if name == "budget":
        name = "asked"
    if name in NAMES:
        found = getattr(row, name)
        return None if found == "" else found
    return value_of(document, name)


def _like(clip: str, pattern: str) -> bool:
    path = clip.replace("\\", "/")
    wanted = pattern.replace("\\", "/")
    return any(fnmatch.fnmatchcase(name, wanted) for name in (path, path.rpartition("/")[2]))


def _equal(found: Any, wanted: str) -> bool:
    if isinstance(found, bool):
        return wanted.casefold() in (("true", "yes", "1") if found else ("false", "no", "0"))
    if found is None:
        return wanted in ("", "none", "null")
    number = _as_number(found)
    if number is not None and (other := _as_number(wanted)) is not None:
        return math.isclose(number, other, rel_tol=1e-9, abs_tol=1e-12)
    return _as_text(found).casefold() == wanted.casefold()


def _as_number(value: Any) -> float | None:
    """Return a number, or one written as text: `0.3`, `30%`."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value)
    text = str(value).strip()
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


__all__ = ["NAMES", "Condition", "Selection", "lookup"]
