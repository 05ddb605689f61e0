"""LVOmniBench: Tao et al., arXiv 2603.19217.

Layout of a local copy:

    data.json
    videos/video_0.mp4
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from omnidrop.evaluation.benchmarks.reader import Reader
from omnidrop.evaluation.items import QuestionSet


def lvomnibench(place: Path, videos: Path | None) -> QuestionSet:
    """Read LVOmniBench: a list of questions, each with its clip of 10 to 90 minutes."""
    read = Reader("lvomnibench", place, videos, ["data.json"])
    items, asked = [], Counter[str]()
    for number, row in enumerate(read.rows(list), 1):
        where = f"Question {number}"
        video = read.text(row, "video_id", where)
        asked[video] += 1
        items.append(
            read.item(
                f"{video}/{asked[video]}",
                read.text(row, "correct_option", where),
                read.choices(row, "options", where),
                video=read.clip(f"videos/{video}.mp4"),
                question=read.text(row, "question", where),
                category=read.text(row, "question_type", where),
                groups={
                    "sound": str(row.get("audio_type") or ""),
                    "difficulty": str(row.get("difficulty") or ""),
                    "video": str(row.get("video_category") or ""),
                },
            )
        )
    return read.found(items)
