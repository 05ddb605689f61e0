"""WorldSense: Hong et al., arXiv 2502.04326.

Layout of a local copy:

    worldsense_qa.json
    videos/ID.mp4
"""

from __future__ import annotations

import re
from pathlib import Path

from omnidrop.errors import UsageError
from omnidrop.evaluation.benchmarks.reader import Reader
from omnidrop.evaluation.items import QuestionSet


def worldsense(place: Path, videos: Path | None) -> QuestionSet:
    """Read WorldSense: an object of videos, each with task0, task1, …"""
    read = Reader("worldsense", place, videos, ["worldsense_qa.json"])
    items = []
    for video, about in read.rows(dict).items():
        if not isinstance(about, dict):
            raise UsageError(f"{video}: this is not an object.", path=read.file)
        for task, row in about.items():
            if not re.fullmatch(r"task\d+", task):
                continue
            where = f"{video}/{task}"
            items.append(
                read.item(
                    where,
                    read.text(row, "answer", where),
                    read.choices(row, "candidates", where),
                    video=read.clip(f"videos/{video}.mp4"),
                    question=read.text(row, "question", where),
                    category=read.text(row, "task_type", where),
                    groups={
                        "domain": about.get("domain", ""),
                        "abilities": row.get("task_domain", ""),
                        "sound": " and ".join(sorted(about.get("audio_class") or [])),
                    },
                )
            )
    return read.found(items)
