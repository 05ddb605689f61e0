"""Daily-Omni: Zhou et al., arXiv 2505.17862.

Layout of a local copy:

    qa.json
    Videos/ID/ID_video.mp4
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from omnidrop.evaluation.benchmarks.reader import Reader
from omnidrop.evaluation.items import QuestionSet


def daily_omni(place: Path, videos: Path | None) -> QuestionSet:
    """Read Daily-Omni: a list of questions with capitalised names."""
    read = Reader("daily-omni", place, videos, ["qa.json"])
    items, asked = [], Counter[str]()
    for number, row in enumerate(read.rows(list), 1):
        where = f"Question {number}"
        video = read.text(row, "video_id", where)
        asked[video] += 1
        items.append(
            read.item(
                f"{video}/{asked[video]}",
                read.text(row, "Answer", where),
                read.choices(row, "Choice", where),
                video=read.clip(f"Videos/{video}/{video}_video.mp4"),
                question=read.text(row, "Question", where),
                category=read.text(row, "Type", where),
                groups={
                    "duration": str(row.get("video_duration") or ""),
                    "topic": str(row.get("video_category") or ""),
                },
            )
        )
    return read.found(items)
