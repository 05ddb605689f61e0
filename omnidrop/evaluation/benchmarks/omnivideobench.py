"""OmniVideoBench: Li et al., arXiv 2510.10689.

Layout of a local copy:

    data.json
    videos/ID.mp4
"""

from __future__ import annotations

from pathlib import Path

from omnidrop.evaluation.benchmarks.reader import Reader
from omnidrop.evaluation.items import QuestionSet


def omnivideobench(place: Path, videos: Path | None) -> QuestionSet:
    """Read OmniVideoBench: a list of videos, each with its questions."""
    read = Reader("omnivideobench", place, videos, ["data.json", "data_example/data.json"])
    items = []
    for number, about in enumerate(read.rows(list), 1):
        video = read.text(about, "video", f"Video {number}")
        for count, row in enumerate(about.get("questions") or [], 1):
            where = f"{video}/{count}"
            items.append(
                read.item(
                    where,
                    read.text(row, "correct_option", where),
                    read.choices(row, "options", where),
                    video=read.clip(f"videos/{video}.mp4", f"{video}.mp4"),
                    question=read.text(row, "question", where),
                    category=read.text(row, "question_type", where),
                    groups={
                        "sound": str(row.get("audio_type") or ""),
                        "video": str(about.get("video_type") or ""),
                    },
                )
            )
    return read.found(items)
