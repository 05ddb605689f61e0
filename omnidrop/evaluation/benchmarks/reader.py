"""Shared reader of local copies of published benchmarks: question file, clips, fields of a row.

Nothing is downloaded.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnidrop.errors import MediaError, UsageError, printable
from omnidrop.evaluation.items import LETTERS, Item, QuestionSet, chosen_answer, read_text

_LETTERED = re.compile(r"\(?([A-Z])\s*[.):、]\s*(.*)", re.DOTALL)


class Reader:
    """What reading one benchmark needs: its files, and exact complaints about its rows.

    Parameters
    ----------
    name : str
        The format.
    place : Path
        Folder, or question file.
    videos : Path or None
        Folder of clips, instead of the publisher's place.
    files : sequence of str
        Where the question file may be, first choice first.
    """

    def __init__(self, name: str, place: Path, videos: Path | None, files: Sequence[str]) -> None:
        self.name, self.videos = name, videos
        self.folder = place if place.is_dir() else place.parent
        self.file = place if place.is_file() else self._file(place, files)
        self.left_out: list[str] = []
        self._ids: Counter[str] = Counter()

    def _file(self, place: Path, files: Sequence[str]) -> Path:
        if not place.is_dir():
            raise MediaError("There is no such folder.", path=place, hint="Check the path.")
        for name in files:
            if (place / name).is_file():
                return place / name
        parquet = sorted(place.rglob("*.parquet"))
        if parquet:
            source = parquet[0].relative_to(place).as_posix()
            raise UsageError(
                f"{self.name} is here as Parquet, which OmniDrop does not read.",
                path=parquet[0],
                hint='In this folder, with pandas and pyarrow installed: python -c "import pandas;'
                f" pandas.read_parquet('{source}').to_json('{files[0]}', orient='records',"
                ' lines=True)"',
            )
        raise UsageError(
            f"This is no local copy of {self.name}.",
            path=place,
            hint=f"Expected is {' or '.join(files)} in it.",
        )

    def data(self) -> Any:
        """Return what the question file holds: JSON, or a list if it ends in .jsonl."""
        text = read_text(self.file)
        try:
            if self.file.suffix == ".jsonl":
                return [json.loads(line) for line in text.split("\n") if line.strip()]
            return json.loads(text)
        except ValueError as problem:
            raise UsageError(f"This is not JSON: {problem}.", path=self.file) from problem

    def rows(self, kind: type) -> Any:
        """Return the file's rows, once they are of the kind the publisher uses."""
        found = self.data()
        if not isinstance(found, kind):
            shape = "a list" if kind is list else "an object"
            raise UsageError(f"{self.name} is {shape} of questions.", path=self.file)
        return found

    def text(self, row: Any, name: str, where: str) -> str:
        """Return a text field, or say where it is missing."""
        value = row.get(name) if isinstance(row, dict) else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise UsageError(f"{where}: {name} is missing.", path=self.file)
        return value.strip()

    def choices(self, row: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
        """Return lettered choices without their letters."""
        found = row.get(name)
        if not isinstance(found, list) or not 2 <= len(found) <= len(LETTERS):
            raise UsageError(f"{where}: {name} is no list of choices.", path=self.file)
        texts = [str(choice).strip() for choice in found]
        parts = [_LETTERED.fullmatch(text) for text in texts]
        if all(p and p[1] == letter for p, letter in zip(parts, LETTERS, strict=False)):
            return tuple(p[2].strip() for p in parts if p)
        return tuple(texts)

    def clip(self, *names: str) -> Path:
        """Return the first of some names that is a file; the first name if none is."""
        bases = [self.folder] if self.videos is None else [self.videos]
        if self.file.parent != self.folder and self.videos is None:
            bases.append(self.file.parent)
        options = [base / name for base in bases for name in names]
        if self.videos is not None:
            options += [self.videos / Path(name).name for name in names]
        return next((path for path in options if path.is_file()), options[0])

    def item(
        self, identity: str, answer: str, choices: tuple[str, ...], **more: Any
    ) -> Item | None:
        """Return a question; None, and a note, if its right choice is blank in the release."""
        self._ids[identity] += 1
        if self._ids[identity] > 1:
            identity = f"{identity}#{self._ids[identity]}"
        letter = answer.strip().strip("().").upper()
        if len(letter) == 1 and letter in LETTERS[: len(choices)]:  # even if "A" is a choice's text
            right = choices[LETTERS.index(letter)]
        else:
            right = chosen_answer(choices, answer.strip(), identity, self.file)
        if not right:
            self.left_out.append(identity)
            return None
        groups = {k: v for k, v in more.pop("groups", {}).items() if v}
        return Item(identity, answer=right, choices=choices, groups=groups, **more)

    def found(self, items: Sequence[Item | None], note: str = "") -> QuestionSet:
        """Return the set, its note saying what was left out."""
        if self.left_out:
            named = ", ".join(map(printable, self.left_out[:5]))
            more = f" and {len(self.left_out) - 5} more" if len(self.left_out) > 5 else ""
            note = f"{note} Left out, for they cannot be answered: {named}{more}.".strip()
        kept = tuple(item for item in items if item is not None)
        return QuestionSet(self.name, kept, self.file, note, "letters")
