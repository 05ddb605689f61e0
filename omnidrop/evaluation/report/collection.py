"""All rows of one or several files, read as a stream: a few numbers of each stay in memory.

A file may have hundreds of thousands of rows, and a row may be a document of 50 kB. Reading keeps
about a hundred bytes of each: its place in the file and the numbers that are counted and ordered
by. What is shown of a row is read again from its place.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnidrop.errors import MediaError, UsageError, did_you_mean, printable
from omnidrop.evaluation.records import RECORDS, read_setup
from omnidrop.evaluation.report.conditions import NAMES, Selection, lookup
from omnidrop.evaluation.report.rows import ANSWERED, FAILED, PARTS, REFUSED, Row, read_row

#: Causes that are told apart; further ones are counted together.
MOST_CAUSES, OTHER = 500, "other causes"
STATUSES = (ANSWERED, FAILED, REFUSED)
#: Stands for a number that a row does not have.
NONE = float("-inf")
#: Stands for a part of a clip of which nothing is known, among levels of 0 to 250.
_UNKNOWN = 255
_LEVELS = 250

Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Place:
    """Where a row stands: number of its file, first byte, and bytes."""

    file: int
    offset: int
    length: int


@dataclass
class Damage:
    """What of a file is no row.

    Attributes
    ----------
    lines : int
        Lines that are not JSON, or no answers, the last one left out.
    first : int
        Number of the first of them.
    cut : bool
        Whether the last line has no end and is no row: its writer is at work, or was stopped.
    replaced : int
        Rows that a later one of the same name replaces.
    """

    lines: int = 0
    first: int = 0
    cut: bool = False
    replaced: int = 0


@dataclass
class Collection:
    """Rows of several files.

    Attributes
    ----------
    files : tuple of Path
    damage : list of Damage
        Of each file.
    groups : list of dict
        The settings of each group of rows, flat.
    causes : list of str
    """

    files: tuple[Path, ...]
    damage: list[Damage] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    setups: list[dict[str, Any]] = field(default_factory=list)
    #: One entry for each row that is shown or replaced.
    shown: bytearray = field(default_factory=bytearray)
    file: array[int] = field(default_factory=lambda: array("i"))
    offset: array[int] = field(default_factory=lambda: array("q"))
    length: array[int] = field(default_factory=lambda: array("q"))
    group: array[int] = field(default_factory=lambda: array("i"))
    cause: array[int] = field(default_factory=lambda: array("i"))
    status: bytearray = field(default_factory=bytearray)
    right: bytearray = field(default_factory=bytearray)  #: 0 wrong, 1 right, 2 not known
    clip: array[int] = field(default_factory=lambda: array("q"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    probability: array[float] = field(default_factory=lambda: array("d"))
    asked: array[float] = field(default_factory=lambda: array("d"))
    kept: array[float] = field(default_factory=lambda: array("d"))
    along: bytearray = field(default_factory=bytearray)
    order: list[Any] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.shown)

    @property
    def chosen(self) -> list[int]:
        """Numbers of the rows that are shown, in the order of the files."""
        return [i for i, shown in enumerate(self.shown) if shown]

    def document(self, number: int) -> dict[str, Any]:
        """Return the line of a row, read again."""
        with self.files[self.file[number]].open("rb") as stream:
            stream.seek(self.offset[number])
            found: dict[str, Any] = json.loads(stream.read(self.length[number]))
            return found

    def row(self, number: int) -> Row:
        """Return a row, read again from its place."""
        found = read_row(self.document(number), self.setups[self.file[number]])
        if found is None:
            raise UsageError(
                "The file has changed while it was read.",
                path=self.files[self.file[number]],
                hint="Run the same command again.",
            )
        return found

    def along_of(self, number: int) -> tuple[float | None, ...]:
        """Return the share kept in each part of a row's clip; empty if unknown."""
        levels = self.along[number * PARTS : (number + 1) * PARTS]
        if all(level == _UNKNOWN for level in levels):
            return ()
        return tuple(None if level == _UNKNOWN else level / _LEVELS for level in levels)

    def slowest(self, numbers: Iterable[int], most: int) -> list[int]:
        """Return the rows that took longest."""
        timed = [i for i in numbers if self.seconds[i] != NONE]
        return sorted(timed, key=lambda i: -self.seconds[i])[:most]

    def least_sure(self, numbers: Iterable[int], most: int) -> list[int]:
        """Return the answered rows of the lowest probability."""
        known = [i for i in numbers if self.probability[i] != NONE and self.answered(i)]
        return sorted(known, key=lambda i: self.probability[i])[:most]

    def failed(self, numbers: Iterable[int]) -> list[int]:
        """Return the rows that failed."""
        return [i for i in numbers if STATUSES[self.status[i]] == FAILED]

    def answered(self, number: int) -> bool:
        """Return whether a row has an answer."""
        return STATUSES[self.status[number]] == ANSWERED

    def ordered(self, numbers: Iterable[int], falling: bool = False) -> list[int]:
        """Return rows in the order that was asked for when they were read.

        Numbers go before texts, and rows without the value are last.
        """
        known = [i for i in numbers if self.order[i] is not None]
        rest = [i for i in numbers if self.order[i] is None]
        known.sort(key=lambda i: _ordered(self.order[i]), reverse=falling)
        return known + rest


def read(
    paths: Sequence[Path],
    selection: Selection | None = None,
    *,
    order: str = "",
    watch: Watch | None = None,
) -> Collection:
    """Read the rows of files; of several for one question in a file, the last counts.

    Parameters
    ----------
    paths : sequence of Path
        Files of answers or records, or folders of evaluations.
    selection : Selection, optional
        Rows that are shown; all by default.
    order : str, optional
        Name of a value to order rows by.
    watch : callable, optional
        Receives bytes read and bytes in all.

    Raises
    ------
    MediaError
        If a file cannot be read.
    UsageError
        If a file holds no row, or no row has a value that is asked for.
    """
    selection = selection or Selection()
    files = tuple(dict.fromkeys(_file_of(path) for path in paths))
    found = Collection(files)
    wanted = {c.name for c in selection.where} | ({order} if order else set())
    strange = {name for name in wanted if name not in (*NAMES, "budget")}
    reader = _Reader(found, selection, order, strange)
    total = sum(_size(path) for path in files)
    done = 0
    for number, path in enumerate(files):
        found.damage.append(Damage())
        found.setups.append(_setup_of(path))
        reader.read(number, lambda here, before=done: watch and watch(before + here, total))  # type: ignore[misc]
        done += _size(path)
    for name in sorted(strange - reader.met):
        known = sorted(reader.names)
        raise UsageError(
            f"No row has a value {name!r}.",
            hint=f"{did_you_mean(name, [*NAMES, *known])}There are: {', '.join(NAMES)}; and of "
            f"these files: {', '.join(known[:30])}.",
        )
    return found


@dataclass
class _Reader:
    found: Collection
    selection: Selection
    order: str
    strange: set[str]
    met: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    _groups: dict[str, int] = field(default_factory=dict)
    _causes: dict[str, int] = field(default_factory=dict)

    def read(self, number: int, watch: Callable[[int], Any]) -> None:
        """Read one file."""
        path, damage = self.found.files[number], self.found.damage[number]
        last: dict[bytes, int] = {}
        rows = lines = place = 0
        whole = True
        try:
            with path.open("rb") as stream:
                for line in stream:
                    lines += 1
                    if lines % 200 == 0:
                        watch(place)
                    document = _object(line)
                    row = None if document is None else self._row(document, number)
                    whole = line.endswith(b"\n")
                    if row is not None and document is not None:
                        rows += 1
                        self._add(row, document, Place(number, place, len(line)), last, damage)
                    elif line.strip() and not whole:
                        damage.cut = True
                    elif line.strip():
                        damage.lines += 1
                        damage.first = damage.first or lines
                    place += len(line)
        except OSError as problem:
            raise MediaError(
                f"The file cannot be read ({problem.strerror}).", path=path, hint="Check the path."
            ) from problem
        if not rows:
            raise UsageError(
                "The file holds no answers." if lines else "The file is empty.",
                path=path,
                hint="Name what --out of `omnidrop batch` or `omnidrop eval` was given.",
            )

    def _row(self, document: dict[str, Any], number: int) -> Row | None:
        row = read_row(document, self.found.setups[number])
        if row is not None and self.strange:
            self.names |= document.keys()
            self.met |= {n for n in self.strange - self.met if lookup(row, document, n) is not None}
        return row

    def _add(
        self,
        row: Row,
        document: Mapping[str, Any],
        place: Place,
        last: dict[bytes, int],
        damage: Damage,
    ) -> None:
        found = self.found
        name = hashlib.blake2b(row.name.encode("utf-8", "backslashreplace"), digest_size=12)
        before = last.get(name.digest())
        if before is not None:
            damage.replaced += 1
            found.shown[before] = 0
        last[name.digest()] = len(found)
        found.shown.append(self.selection.holds(row, document))
        found.file.append(place.file)
        found.offset.append(place.offset)
        found.length.append(place.length)
        found.group.append(self._group(row))
        found.cause.append(self._cause(row))
        found.status.append(STATUSES.index(row.status))
        found.right.append(2 if row.right is None else int(row.right))
        found.clip.append(_short_hash(row.clip))
        for values, value in (
            (found.seconds, row.seconds),
            (found.probability, row.probability),
            (found.asked, row.asked),
            (found.kept, row.kept),
        ):
            values.append(NONE if value is None else value)
        found.along += _levels(row.along)
        if self.order:
            value = lookup(row, document, self.order)
            found.order.append(value[:200] if isinstance(value, str) else value)

    def _group(self, row: Row) -> int:
        number = self._groups.setdefault(row.group, len(self.found.groups))
        if number == len(self.found.groups):
            self.found.groups.append(dict(row.settings))
        elif len(row.settings) > len(self.found.groups[number]):
            self.found.groups[number] = dict(row.settings)  # a failure tells none
        return number

    def _cause(self, row: Row) -> int:
        if not row.cause:
            return -1
        name = row.cause if row.cause in self._causes or self._room() else OTHER
        if name not in self._causes:
            self._causes[name] = len(self.found.causes)
            self.found.causes.append(name)
        return self._causes[name]

    def _room(self) -> bool:
        return len(self.found.causes) < MOST_CAUSES


def rows_of(found: Collection, numbers: Iterable[int]) -> Iterator[tuple[int, Row]]:
    """Yield rows by number, read again."""
    for number in numbers:
        yield number, found.row(number)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    if (path / RECORDS).is_file():
        return path / RECORDS
    raise UsageError(
        f"There is no {RECORDS} in this folder.",
        path=path,
        hint="Name a folder of `omnidrop eval`, or the file of `omnidrop batch`.",
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as problem:
        raise MediaError(
            f"The file cannot be read ({problem.strerror}).", path=path, hint="Check the path."
        ) from problem


def _setup_of(path: Path) -> dict[str, Any]:
    """Return what the records of an evaluation share; empty for other files."""
    return (read_setup(path.parent) or {}) if path.name == RECORDS else {}


def _short_hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _levels(along: Sequence[float | None]) -> bytes:
    if not along:
        return bytes([_UNKNOWN] * PARTS)
    return bytes(
        _UNKNOWN if share is None else round(min(max(share, 0.0), 1.0) * _LEVELS) for share in along
    )


def _ordered(value: Any) -> tuple[int, float, str]:
    if isinstance(value, (int, float)):
        return 0, float(value), ""
    return 1, 0.0, printable(value)


__all__ = ["NONE", "Collection", "Damage", "read", "rows_of"]
