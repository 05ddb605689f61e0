"""Tables in a file, row by row: JSONL, CSV, TSV or Parquet, told apart by the suffix."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnidrop.errors import MediaError, UsageError
from omnidrop.evaluation.items import read_text

#: What a row is: its line (its number in a Parquet file) and its cells by column.
Row = tuple[int, dict[str, Any]]

PARQUET = (".parquet", ".pq")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
#: Longest cell in characters; Python's own limit of 128 KiB is less than a transcript.
_LONGEST = 1 << 30


def table_rows(path: Path, hint: str = "Check that it exists and can be read.") -> Iterator[Row]:
    """Yield the rows of a table.

    Parameters
    ----------
    path : Path
        .csv and .tsv with a header line, .parquet; anything else is JSONL.
    hint : str
        Remedy named in the error when the file cannot be read.

    Yields
    ------
    (int, dict)
        Line and cells. Empty cells of a CSV file, and NaN of a Parquet file, are None.

    Raises
    ------
    UsageError
        If a line is wrong, which is named, or pyarrow is needed and not installed.
    MediaError
        If the file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in PARQUET:
        return _parquet_rows(path, hint)
    if suffix in _DELIMITERS:
        return _csv_rows(path, read_text(path, hint), _DELIMITERS[suffix])
    return json_rows(path, read_text(path, hint))


def json_rows(path: Path, text: str) -> Iterator[Row]:
    """Yield the line number and object of every line of a JSONL file's text."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise UsageError(f"Line {number} is not JSON: {problem}.", path=path) from problem
        if not isinstance(row, dict):
            raise UsageError(f"Line {number} is not a JSON object.", path=path)
        yield number, row


def _csv_rows(path: Path, text: str, delimiter: str) -> Iterator[Row]:
    # StringIO splits at line feeds and carriage returns alone; str.splitlines also at U+2028, NEL,
    # VT and FF, which are text.
    csv.field_size_limit(_LONGEST)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    names = [name.strip() for name in reader.fieldnames or ()]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"The header names {name!r} twice.", path=path)
    reader.fieldnames = names
    for row in reader:
        if None in row or None in row.values():
            raise UsageError(
                f"Line {reader.line_num} has more or fewer cells than the header.",
                path=path,
                hint="Put texts with commas in double quotes.",
            )
        yield reader.line_num, {name: cell if cell.strip() else None for name, cell in row.items()}


def pyarrow_parquet(path: Path) -> Any:
    """Return pyarrow's module for Parquet.

    Raises
    ------
    UsageError
        If it is not installed; `path` is the file that needs it.
    """
    try:
        import pyarrow.parquet
    except ImportError as problem:
        raise UsageError(
            "Parquet files need pyarrow, which is not installed.",
            path=path,
            hint='Install it: pip install "omnidrop[parquet]"',
        ) from problem
    return pyarrow.parquet


def _parquet_rows(path: Path, hint: str) -> Iterator[Row]:
    parquet = pyarrow_parquet(path)
    try:
        with path.open("rb") as stream:
            number = 0
            for batch in parquet.ParquetFile(stream).iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {name: _cell(value) for name, value in row.items()}
    except OSError as problem:
        if problem.strerror is None:  # pyarrow's own, about the content
            raise UsageError(f"The file is not Parquet: {problem}.", path=path) from problem
        raise MediaError(
            f"The question set cannot be read ({problem.strerror}).", path=path, hint=hint
        ) from problem
    except ValueError as problem:
        raise UsageError(f"The file is not Parquet: {problem}.", path=path) from problem


def _cell(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
