"""Answer a question about every clip of a Hugging Face dataset, as new columns of it.

    python examples/datasets_column.py samples/batch.jsonl --out answered
    python examples/datasets_column.py clips.parquet --clip video --ask "What happens?" --out done

Reads what is on this machine: a JSONL, CSV or Parquet file, or a folder of `save_to_disk`. A clip
is a path, or a cell of a `datasets.Video` column. Nothing is downloaded; needs `datasets`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["HF_DATASETS_OFFLINE"] = "1"

import datasets

from omnidrop.batch.answering import Answerer, AnswerOptions, MethodChoice
from omnidrop.batch.rows import Row
from omnidrop.options import LoadOptions

FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


def read(source: Path) -> datasets.Dataset:
    """Return the dataset in a file, or in a folder of `save_to_disk`."""
    if source.is_dir():
        found = datasets.load_from_disk(str(source))
        return found if isinstance(found, datasets.Dataset) else found["train"]
    kind = FORMATS[source.suffix.lower()]
    return datasets.load_dataset(kind, data_files=str(source), split="train")


def rows(
    dataset: datasets.Dataset, clip: str, question: str | None, ask: str, base: Path, kept: Path
) -> Iterator[Row]:
    """Yield a row for each line of the dataset.

    Parameters
    ----------
    dataset : Dataset
    clip : str
        Column of the clips: paths relative to `base`, or a `Video` column.
    question : str or None
        Column of the questions; None where `ask` is the question of every row.
    ask : str
    base, kept : Path
        `kept` takes clips that the dataset holds as bytes.
    """
    if isinstance(dataset.features[clip], datasets.Video):
        dataset = dataset.cast_column(clip, datasets.Video(decode=False))  # the file, not frames
    columns = dataset.select_columns([clip, *([question] if question else [])])
    for number, line in enumerate(columns):
        cell = line[clip]
        path = cell["path"] if isinstance(cell, dict) else cell
        if isinstance(cell, dict) and cell.get("bytes"):
            place = kept / f"{number}{Path(path or 'clip.mp4').suffix}"
            place.write_bytes(cell["bytes"])
        else:
            place = base / path
        yield Row(str(number), place, line[question] if question else ask)


def answered(dataset: datasets.Dataset, found: dict[str, dict[str, Any]]) -> datasets.Dataset:
    """Return the dataset with the columns answer, probability, kept and error."""
    records = [found[str(number)] for number in range(len(dataset))]
    traces = [record.get("trace") or {} for record in records]
    for name, values in (
        ("answer", [record.get("text") for record in records]),
        ("probability", [record.get("probability") for record in records]),
        ("kept", [trace.get("realised_budget") for trace in traces]),
        ("error", [record.get("error") for record in records]),
    ):
        kind = datasets.Value("string" if name in ("answer", "error") else "float64")
        free = name if name not in dataset.column_names else f"omnidrop_{name}"
        dataset = dataset.add_column(free, values, feature=kind)
    return dataset


def main() -> None:
    """Answer every row, write the dataset, and print how many were answered."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder, as save_to_disk writes it")
    parser.add_argument("--clip", default="clip", help="column of the clips")
    parser.add_argument("--question", default="question", help="column of the questions")
    parser.add_argument("--ask", help="one question for every row, in place of the column")
    parser.add_argument("--model", default="demo", help="demo, 3b, 7b, a hub name or a folder")
    parser.add_argument("--budget", type=float, help="share of tokens kept")
    chosen = parser.parse_args()

    dataset = read(chosen.source)
    base = chosen.source if chosen.source.is_dir() else chosen.source.parent
    options = AnswerOptions(
        load=LoadOptions(model=chosen.model, offline=True),
        method=MethodChoice(budget=chosen.budget),
    )
    with tempfile.TemporaryDirectory() as kept:
        column = None if chosen.ask else chosen.question
        asked = rows(dataset, chosen.clip, column, chosen.ask or "", base, Path(kept))
        found = {record["id"]: record for record in Answerer(options).answer(asked)}
    made = answered(dataset, found)
    made.save_to_disk(str(chosen.out))
    failed = sum(record.get("error") is not None for record in found.values())
    print(f"{len(made) - failed} answered, {failed} failed, in {chosen.out}")


if __name__ == "__main__":
    main()
