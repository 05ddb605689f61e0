"""AVUT: Yang et al., arXiv 2503.19951.

Layout of a local copy:

    AV_Human_data.json
    data/ID.mp4
"""

from __future__ import annotations

from pathlib import Path

from omnidrop.evaluation.benchmarks.reader import Reader
from omnidrop.evaluation.items import QuestionSet


def avut(place: Path, videos: Path | None) -> QuestionSet:
    """Read AVUT: a list of questions with option_A to option_D."""
    files = ["AV_Human_data.json", "AV_Human_filtered_data.json", "AV_Gemini_data.json"]
    read = Reader("avut", place, videos, files)
    items = []
    for number, row in enumerate(read.rows(list), 1):
        where = f"Question {number}"
        identity = read.text(row, "QA_id", where)
        choices = tuple(str(row.get(f"option_{letter}") or "").strip() for letter in "ABCD")
        items.append(
            read.item(
                identity,
                read.text(row, "answer", where),
                choices,
                video=read.clip(read.text(row, "video_path", where)),
                question=read.text(row, "question", where),
                category=read.text(row, "task_type", where),
                groups={"video": str(row.get("video_type") or "")},
            )
        )
    return read.found(items)
