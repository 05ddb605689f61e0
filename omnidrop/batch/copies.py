"""The answers as a table: CSV, TSV or Parquet, written once they are complete."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnidrop.batch.output import read_answers
from omnidrop.batch.records import Record
from omnidrop.errors import UsageError
from omnidrop.evaluation.table_files import PARQUET, pyarrow_parquet
from omnidrop.files import plain, whole_file

#: Suffixes of copies.
COPIES = (".csv", ".tsv", *PARQUET)
#: Columns that serve to continue a run and are left out.
_LEFT_OUT = ("schema", "key", "setup", "settings")
_ROWS = 4096


def check_copy(path: Path) -> None:
    """Check before a run that a copy can be written after it.

    Raises
    ------
    UsageError
        If its suffix is none of `COPIES`, its folder does not exist, or pyarrow is needed and not
        installed.
    """
    suffix = path.suffix.lower()
    if suffix not in COPIES:
        raise UsageError(
            "A copy is a CSV, TSV or Parquet file.", path=path, hint=f"End it in {COPIES[0]}."
        )
    if not path.parent.is_dir():
        raise UsageError(
            "The folder does not exist.", path=path.parent, hint="Create it, or choose another."
        )
    if suffix in PARQUET:
        pyarrow_parquet(path)


def write_copy(answers: Path, path: Path) -> int:
    """Write all answers of a file as a table, in their order; a former copy is replaced.

    Texts, numbers and truth values are cells; anything else becomes JSON. The file of answers is
    read twice, and not held in memory.

    Parameters
    ----------
    answers : Path
    path : Path
        See `COPIES`.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    UsageError
        As `check_copy`, or if it cannot be written.
    """
    check_copy(path)
    columns = _columns(answers)
    with whole_file(path, force=True) as draft:
        if path.suffix.lower() in PARQUET:
            return _write_parquet(answers, draft, columns)
        return _write_csv(answers, draft, columns, "\t" if path.suffix.lower() == ".tsv" else ",")


def _columns(answers: Path) -> dict[str, type]:
    """Return the columns in the order they first appear, each with the type of its cells."""
    found: dict[str, type] = {}
    for row in read_answers(answers):
        for name, value in row.items():
            if name in _LEFT_OUT:
                continue
            kind = _kind(value)
            before = found.setdefault(name, type(None))
            if kind is not type(None):
                found[name] = kind if before is type(None) else _common(before, kind)
    return found


def _kind(value: Any) -> type:
    return type(value) if isinstance(value, (bool, int, float, str, type(None))) else dict


def _common(one: type, other: type) -> type:
    if one is other:
        return one
    return float if {one, other} == {int, float} else dict


def _rows(answers: Path, columns: dict[str, type]) -> Iterator[Record]:
    for row in read_answers(answers):
        yield {name: _cell(row.get(name), kind) for name, kind in columns.items()}


def _cell(value: Any, kind: type) -> Any:
    if value is None:
        return None
    if kind is dict:
        return json.dumps(plain(value), ensure_ascii=False)
    return float(value) if kind is float else value


def _write_csv(answers: Path, draft: Path, columns: dict[str, type], delimiter: str) -> int:
    count = 0
    with draft.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(
            stream, columns, delimiter=delimiter, lineterminator="\n", restval=""
        )
        writer.writeheader()
        for row in _rows(answers, columns):
            writer.writerow(row)
            count += 1
    return count


def _write_parquet(answers: Path, draft: Path, columns: dict[str, type]) -> int:
    parquet = pyarrow_parquet(draft)
    import pyarrow

    types = {
        bool: pyarrow.bool_(),
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        str: pyarrow.string(),
        dict: pyarrow.string(),
        type(None): pyarrow.null(),
    }
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    count = 0
    with parquet.ParquetWriter(draft, schema) as writer:
        batch: list[Record] = []
        for row in _rows(answers, columns):
            batch.append(row)
            if len(batch) == _ROWS:
                writer.write_table(pyarrow.Table.from_pylist(batch, schema))
                count, batch = count + len(batch), []
        writer.write_table(pyarrow.Table.from_pylist(batch, schema))
    return count + len(batch)
