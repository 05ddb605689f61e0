"""What an evaluation leaves on the disk: one line of JSON per method, budget and question.

Lines are written whole and at once, so several processes may add to one folder. A line that was cut
short is skipped and its question asked again; of several lines for one question the last counts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnidrop.errors import UsageError, printable
from omnidrop.files import plain, to_json

SCHEMA = "omnidrop.eval/1"
SETUP_SCHEMA = "omnidrop.eval-setup/1"
RECORDS, SETUP = "records.jsonl", "setup.json"

ANSWERED, REFUSED, FAILED = "answered", "refused", "error"

Record = dict[str, Any]


@dataclass
class Folder:
    """The records of one evaluation.

    Parameters
    ----------
    path : Path
        Created if it does not exist.
    setup : mapping
        What all its records share: set, model, sampling, how questions are asked.

    Raises
    ------
    UsageError
        If the folder holds records of another setup, or cannot be written.
    """

    path: Path
    setup: Mapping[str, Any]
    damaged: int = 0
    done: dict[str, str] = field(default_factory=dict)
    _stream: int | None = None

    def __enter__(self) -> Folder:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            _agree(self.path, self.setup)
            found, self.damaged = read_records(self.path)
            self.done = {record["key"]: record["status"] for record in found}
            self._labels = {_cell(r): r["method"] for r in found}
            name = self.path / RECORDS
            binary = getattr(os, "O_BINARY", 0)  # Windows alone has it
            self._stream = os.open(name, os.O_RDWR | os.O_APPEND | os.O_CREAT | binary, 0o644)
            if os.fstat(self._stream).st_size and not name.read_bytes().endswith(b"\n"):
                os.write(self._stream, b"\n")
        except OSError as problem:
            raise UsageError(
                f"The folder of results cannot be used ({problem.strerror}).",
                path=self.path,
                hint="Give --out another folder.",
            ) from problem
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            os.close(self._stream)
            self._stream = None

    def check_label(self, label: str, budget: float, settings: Mapping[str, Any]) -> None:
        """Refuse a label that has other settings in this folder."""
        before = self._labels.get((label, budget))
        if before is None:
            return
        now = plain(settings)
        for name in _other_settings(before, now):
            raise UsageError(
                f"{label!r} at {budget:g} was run with {name}={before[name]} before, "
                f"not {now[name]}.",
                path=self.path,
                hint="Give it a label of its own with --variant, or another --out.",
            )

    def settled(self, key: str) -> bool:
        """Return whether a question was answered or refused before; errors are tried again."""
        return self.done.get(key, FAILED) != FAILED

    def add(self, record: Record) -> None:
        """Write one record in a single call."""
        if self._stream is None:
            raise ValueError("the folder is not open")
        text = to_json(record)
        try:
            os.write(self._stream, (text + "\n").encode("utf-8", "backslashreplace"))
        except OSError as problem:
            raise UsageError(
                f"A record cannot be written ({problem.strerror}).",
                path=self.path,
                hint="Make room and run the same command again; it resumes.",
            ) from problem
        self.done[record["key"]] = record["status"]


def read_records(path: Path) -> tuple[list[Record], int]:
    """Return a folder's records, the last of each key, and the number of damaged lines."""
    name = path / RECORDS
    if not name.exists():
        return [], 0
    found: dict[str, Record] = {}
    damaged = 0
    for line in name.read_bytes().split(b"\n"):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            known = record["schema"] == SCHEMA
            key = record["key"]
        except (ValueError, KeyError, TypeError):
            damaged += 1
            continue
        if not known:
            raise UsageError(
                f"A record has schema {printable(record['schema'])!r}, not {SCHEMA}.", path=name
            )
        found[key] = record
    return list(found.values()), damaged


def merge(folders: Iterable[Path]) -> tuple[dict[str, Any], list[Record], int]:
    """Return what several folders hold: setup, records, and the number of damaged lines.

    Raises
    ------
    UsageError
        If a folder holds no evaluation, their setups differ, or one label stands for two settings.
    """
    setup: dict[str, Any] | None = None
    first: Path | None = None
    by_question: dict[tuple[str, float, str, int], Record] = {}
    settings: dict[tuple[str, float], Record] = {}
    damaged = 0
    for path in folders:
        own = read_setup(path)
        if own is None:
            raise UsageError(
                "This folder holds no evaluation.", path=path, hint="Name what --out was given."
            )
        if setup is None:
            setup, first = own, path
        else:
            _compare(path, own, setup, f"those in {printable(first)}")
        found, wrong = read_records(path)
        damaged += wrong
        for record in found:
            cell = _cell(record)
            before = settings.setdefault(cell, record["method"])
            if _other_settings(before, record["method"]):
                raise UsageError(
                    f"{cell[0]!r} at {cell[1]:g} stands for different settings in these folders.",
                    hint="Run one of them again under a label of its own, with --variant.",
                )
            name = (*cell, record["id"], record.get("draw", 0))
            if record["status"] != FAILED or name not in by_question:
                by_question[name] = record
    return setup or {}, list(by_question.values()), damaged


def read_setup(path: Path) -> dict[str, Any] | None:
    """Return a folder's setup, or None if it holds no evaluation."""
    try:
        found = json.loads((path / SETUP).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise UsageError(f"{SETUP} cannot be read: {problem}.", path=path) from problem
    if not isinstance(found, dict) or found.get("schema") != SETUP_SCHEMA:
        raise UsageError(f"{SETUP} is not one of an evaluation.", path=path)
    return found


def key_of(*parts: Any) -> str:
    """Return a key: equal parts give equal keys."""
    text = json.dumps(plain(parts), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:20]


def _cell(record: Record) -> tuple[str, float]:
    return record["label"], record["asked"]


def _other_settings(one: Record, other: Record) -> list[str]:
    """Return the settings that both records of a method have, with different values."""
    return [name for name in one if name != "plan" and other.get(name, one[name]) != one[name]]


def _agree(path: Path, setup: Mapping[str, Any]) -> None:
    """Write the setup beside the records, or check that it is the one already there."""
    wanted = plain({"schema": SETUP_SCHEMA, **setup})
    there = read_setup(path)
    if there is None:
        try:
            with (path / SETUP).open("x", encoding="utf-8") as stream:
                stream.write(json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
            return
        except FileExistsError:  # another process created it
            there = read_setup(path) or {}
    _compare(path, wanted, there, "the records already there")


def _compare(path: Path, one: Mapping[str, Any], other: Mapping[str, Any], whose: str) -> None:
    """Raise UsageError if two setups differ; it names the first setting that does."""
    mine, theirs = flat(one), flat(other)
    for name in dict.fromkeys([*mine, *theirs]):
        if mine.get(name) != theirs.get(name):
            here, there = (_shown(flat, name) for flat in (mine, theirs))
            raise UsageError(
                f"{name} is {here}, but {there} in {whose}.",
                path=path,
                hint="Results of different setups are not compared; give --out another folder.",
            )


def flat(setup: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return the settings of nested mappings, as `clip.fps`."""
    found: dict[str, Any] = {}
    for name, value in setup.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{name}.")
        else:
            found[before + name] = value
    return found


def _shown(flat: Mapping[str, Any], name: str) -> str:
    return json.dumps(flat[name], ensure_ascii=False)[:120] if name in flat else "not given"
