"""Video-MME: Fu et al., arXiv 2405.21075.

Layout of a local copy:

    videomme/test.jsonl
    data/ID.mp4

The publisher's Parquet is not read; the error names the command that converts it to JSONL.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnidrop.errors import UsageError
from omnidrop.evaluation.benchmarks.reader import Reader
from omnidrop.evaluation.items import QuestionSet

_SUFFIXES = (".mp4", ".mkv", ".webm", ".MP4")


def video_mme(place: Path, videos: Path | None) -> QuestionSet:
    """Read Video-MME: flat rows as on the hub, or videos with questions as on GitHub."""
    files = ["videomme/test.jsonl", "test.jsonl", "test.json", "output_test_template.json"]
    read = Reader("video-mme", place, videos, files)
    items = []
    for where, row in _flat(read.rows(list)):
        name = str(row.get("videoID") or row.get("video_id") or "")
        if not name:
            raise UsageError(f"{where}: videoID is missing.", path=read.file)
        items.append(
            read.item(
                read.text(row, "question_id", where),
                read.text(row, "answer", where),
                read.choices(row, "options", where),
                video=read.clip(*(f"{d}/{name}{s}" for d in ("data", "videos") for s in _SUFFIXES)),
                question=read.text(row, "question", where),
                category=read.text(row, "task_type", where),
                groups={
                    "duration": str(row.get("duration") or ""),
                    "domain": str(row.get("domain") or ""),
                },
            )
        )
    return read.found(items, "Asked without subtitles.")


def _flat(rows: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield one row per question, with its video's fields, whichever way they are nested."""
    for number, row in enumerate(rows, 1):
        nested = row.get("questions") if isinstance(row, dict) else None
        if not isinstance(nested, list):
            yield f"Question {number}", row if isinstance(row, dict) else {}
            continue
        about = {name: value for name, value in row.items() if name != "questions"}
        for count, question in enumerate(nested, 1):
            yield f"Video {number}, question {count}", {**about, **question}
