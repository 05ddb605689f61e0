"""The file of answers: one line of JSON a row, added whole, continued where it was left.

The first line of a run also has `settings`, which all answers of the file share. A run with other
settings is refused: what is counted or shown of the file would mix answers of two kinds.

A line belongs to a row with the same id and key, or to one with the same key whose own id is not in
the file: a clip that was renamed. Lines of earlier versions have no key and are known by their id.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

from omnidrop.batch.keys import Setup
from omnidrop.batch.lock import Lock, holder
from omnidrop.batch.records import ANSWERED, FLAT, Keys, Record, is_failure
from omnidrop.errors import OutputError, UsageError, printable
from omnidrop.files import to_json

#: The state of a row that was answered; that of one that failed is its cause.
DONE = ""

#: How every line begins; a last line without its end is cut off only if it begins like this.
_BEGINNING = b'{"schema": "omnidrop.'


@dataclass(frozen=True)
class Shard:
    """The part `number` of `count` parts, from 1, into which the clips are divided."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UsageError(
                f"There is no shard {self.number} of {self.count}.",
                hint="They are counted from 1: --shard 1/4 to --shard 4/4.",
            )

    def output(self, path: Path) -> Path:
        """Return the shard's own file of answers: answers.2of4.jsonl."""
        return path.with_name(f"{path.stem}.{self.number}of{self.count}{path.suffix}")

    def has(self, position: int) -> bool:
        """Whether the clip at a position, from 0 in the order of the rows, is in this part."""
        return position % self.count == self.number - 1


class Answers(Protocol):
    """Where records go."""

    def check(self, setup: Setup) -> None:
        """Refuse settings that differ from those of the answers that are there."""

    def state(self, row: str, keys: Keys) -> str | None:
        """Return the state of a row by its id: `DONE`, the cause of a failure, or None if new."""

    def add(self, record: Record) -> None:
        """Write a record, whole."""


class StreamAnswers:
    """Records to a stream, such as stdout; nothing is known of earlier ones.

    Parameters
    ----------
    stream : binary file
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def check(self, setup: Setup) -> None:
        """Accept any settings."""

    def state(self, row: str, keys: Keys) -> str | None:
        """Return None: every row is new."""
        return None

    def add(self, record: Record) -> None:
        """Write a record and flush."""
        try:
            self._stream.write(_line(record))
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as problem:
            raise _cannot_write(problem, None) from problem


@dataclass
class _Known:
    """What the lines of the files say: state by key and id, or by id alone for earlier versions."""

    by_key: dict[str, dict[str, str]] = field(default_factory=dict)
    by_id: dict[str, str] = field(default_factory=dict)
    setups: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)

    def add(self, line: Mapping[str, Any]) -> None:
        state = DONE if not is_failure(line) else str(line.get("cause") or line["error"])
        if "key" not in line:
            self.by_id[str(line["id"])] = state
            return
        self.by_key.setdefault(str(line["key"]), {})[str(line["id"])] = state
        setup = str(line.get("setup"))
        self.setups[setup] = line.get("settings") or self.setups.get(setup)


class AnswersFile:
    """A file of answers, locked and open for adding; a context manager.

    Parameters
    ----------
    path : Path
        The file; made if it is not there. Of a shard, the name that all shards share.
    ids : collection of str
        Of all rows that may be asked.
    shard : Shard, optional
        Each has a file of its own. What other shards' files and the shared one hold is done.

    Raises
    ------
    UsageError
        If another process writes to it, it holds something else, or its folder does not exist.
    OutputError
        If it cannot be written.
    """

    def __init__(self, path: Path, ids: Collection[str] = (), shard: Shard | None = None) -> None:
        self.shared = path
        self.path = path if shard is None else shard.output(path)
        self._ids, self._shard = frozenset(ids), shard
        self._known = _Known()
        self._lock: Lock | None = None
        self._stream: Any = None
        self._end = 0
        self._setup: Setup | None = None
        self._has_settings = False
        self._failures: set[str] = set()
        self._superseded = False

    def __enter__(self) -> AnswersFile:
        if not self.path.parent.is_dir():
            raise UsageError(
                "The folder of --out does not exist.", path=self.path.parent, hint="Create it."
            )
        if self.path.exists() and not stat.S_ISREG(self.path.stat().st_mode):
            raise UsageError(
                "This is no file to add answers to.", path=self.path, hint="- is for stdout."
            )
        self._lock = Lock(self.path)
        try:
            self._check_others()
            self._read()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._close()

    def _close(self) -> None:
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()
            self._stream = None
        if self._lock is not None:
            self._lock.release()

    def _finish(self) -> None:
        try:
            if self._stream is not None:
                os.fsync(self._stream.fileno())
            if self._superseded:
                self._drop_superseded()
        except OSError as problem:
            raise _cannot_write(problem, self.path) from problem

    # What is there

    def _check_others(self) -> None:
        """Refuse to run beside processes that have divided the rows in another way."""
        for path, count in self._siblings():
            if self._shard is not None and count == self._shard.count:
                continue
            whose = holder(path)
            if whose is not None:
                raise UsageError(
                    f"Another process is at a part of these rows: {whose}.",
                    path=path,
                    hint="Wait for it; the rows must be divided in one way at a time.",
                )

    def _siblings(self) -> Iterator[tuple[Path, int]]:
        """Yield the files of other parts of the same rows, with the number of parts."""
        if self._shard is not None:
            yield self.shared, 1
        name = re.compile(
            rf"{re.escape(self.shared.stem)}\.\d+of(\d+){re.escape(self.shared.suffix)}"
        )
        for path in sorted(self.shared.parent.iterdir()):
            found = name.fullmatch(path.name)
            if found is not None and path != self.path:
                yield path, int(found[1])

    def _read(self) -> None:
        for path, _ in self._siblings():
            if path.exists():
                for line in read_answers(path):
                    self._known.add(line)
        try:
            if self.path.exists():
                for line in read_answers(self.path):
                    self._known.add(line)
                    self._note(line)
                    self._has_settings |= "settings" in line
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            self._stream = os.fdopen(handle, "r+b", buffering=0)
            self._end = _whole_lines(self._stream)
            self._stream.seek(self._end)
            half = self._stream.read(len(_BEGINNING))
            if not _BEGINNING.startswith(half):
                raise _no_answer(self.path, "The last line")
            self._stream.truncate(self._end)
            self._stream.seek(self._end)
        except OSError as problem:
            raise _cannot_write(problem, self.path) from problem

    def _note(self, line: Mapping[str, Any]) -> None:
        """Note whether a line takes the place of an earlier failure of the same row."""
        name = str(line["id"])
        self._superseded |= name in self._failures
        if is_failure(line):
            self._failures.add(name)

    @property
    def earlier_versions(self) -> int:
        """How many rows are known by their id alone, from versions without keys."""
        return len(self._known.by_id)

    def check(self, setup: Setup) -> None:
        """Refuse settings that differ from those of the answers that are there.

        Raises
        ------
        UsageError
            Names the setting, and what it is here and there.
        """
        self._setup = setup
        for key, settings in self._known.setups.items():
            if key == setup.key:
                continue
            found = setup.first_difference(settings) if settings is not None else None
            what = "The answers in this file were made with other settings."
            if found is not None:
                name, mine, theirs = found
                what = f"{name} is {_shown(mine)}, but {_shown(theirs)} in this file's answers."
            raise UsageError(
                what,
                path=self.path,
                hint="Answers of different settings are kept apart: give --out another file.",
            )

    def state(self, row: str, keys: Keys) -> str | None:
        """Return the state of a row by its id: `DONE`, the cause of a failure, or None if new."""
        there = self._known.by_key.get(keys.row, {})
        if row in there:
            return there[row]
        for name in there:
            if name not in self._ids:  # the row under its former name; it stands for one row
                return there.pop(name)
        return self._known.by_id.get(row)

    # Adding

    def add(self, record: Record) -> None:
        """Write a record, whole; a line that does not fit on the disk leaves nothing behind.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if not self._has_settings and self._setup is not None:
            record = {**record, "settings": self._setup.settings}
            self._has_settings = True
        line = _line(record)
        try:
            _write_all(self._stream, line)
        except BaseException as problem:
            with suppress(OSError):
                self._stream.truncate(self._end)
                self._stream.seek(self._end)
            if isinstance(problem, OSError):
                raise _cannot_write(problem, self.path) from problem
            raise
        self._end += len(line)
        self._note(record)

    def _drop_superseded(self) -> None:
        """Write the file anew without failures whose row has a later line; in one step."""
        target = Path(os.path.realpath(self.path))
        last = {str(line["id"]): number for number, line in enumerate(read_answers(target))}
        settings: Any = None
        handle, name = tempfile.mkstemp(".jsonl", ".omnidrop-", target.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                for number, line in enumerate(read_answers(target)):
                    settings = settings or line.pop("settings", None)
                    if is_failure(line) and last[str(line["id"])] != number:
                        continue
                    if settings is not None and "key" in line:
                        line, settings = {**line, "settings": settings}, None
                    stream.write(_line(line))
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(name, stat.S_IMODE(target.stat().st_mode))
            os.replace(name, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise


def read_answers(path: Path) -> Iterator[Record]:
    """Yield the lines of a file of answers; a last line without its end is left out.

    Raises
    ------
    UsageError
        If the file holds something else, or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if not line.endswith(b"\n"):
                    return
                if line.strip():
                    yield _parsed(path, number, line)
    except OSError as problem:
        raise UsageError(
            f"The file of answers cannot be read ({problem.strerror}).", path=path
        ) from problem


def _parsed(path: Path, number: int, line: bytes) -> Record:
    try:
        row: Record = json.loads(line)
        known = str(row["id"]) and row["schema"]
        if known == FLAT or known.startswith(ANSWERED) or row["error"]:
            return row
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise _no_answer(path, f"Line {number}")


def _no_answer(path: Path, line: str) -> UsageError:
    return UsageError(
        f"{line} of the output is not an answer.", path=path, hint="Give --out another file."
    )


def _whole_lines(stream: Any) -> int:
    """Return the length of a file up to the end of its last whole line."""
    end: int = stream.seek(0, os.SEEK_END)
    block = 1 << 16
    while end:
        start = max(0, end - block)
        stream.seek(start)
        found: int = stream.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _write_all(stream: Any, data: bytes) -> None:
    """Write to an unbuffered stream, which may take a part at a time."""
    rest = memoryview(data)
    while rest:
        taken = stream.write(rest)
        if not taken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rest = rest[taken:]


def _line(record: Mapping[str, Any]) -> bytes:
    return (to_json(record) + "\n").encode("utf-8")


def _shown(value: Any) -> str:
    return "not set" if value is None else printable(json.dumps(value, ensure_ascii=False)[:120])


def _cannot_write(problem: OSError, path: Path | None) -> OutputError:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            "The disk is full; the answers up to here are kept.",
            path=path,
            hint="Make room and run the same command again: it goes on where it was.",
        )
    return OutputError(
        f"The answers cannot be written ({problem.strerror or problem}).",
        path=path,
        hint="Those up to here are kept; the same command goes on where it was.",
    )
