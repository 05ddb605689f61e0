"""Music-AVQA: Li et al., arXiv 2203.14072.

Layout of a local copy:

    data/json/avqa-test.json
    MUSIC-AVQA-videos-Real/ID.mp4
    MUCIS-AVQA-videos-Synthetic/ID.mp4
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from omnidrop.errors import UsageError
from omnidrop.evaluation.benchmarks.reader import Reader
from omnidrop.evaluation.items import QuestionSet

_SLOT = re.compile(r"<[^<>]*>")


def music_avqa(place: Path, videos: Path | None) -> QuestionSet:
    """Read Music-AVQA: templates with slots, and free answers of one word."""
    read = Reader(
        "music-avqa",
        place,
        videos,
        [
            "data/json_update/avqa-test.json",
            "data/json/avqa-test.json",
            "json/avqa-test.json",
            "avqa-test.json",
        ],
    )
    parts = ("MUSIC-AVQA-videos-Real", "MUCIS-AVQA-videos-Synthetic", "MUSIC-AVQA-videos-Synthetic")
    places = [f"{base}{part}" for base in ("", "videos/", "data/video/") for part in parts]
    items = []
    for number, row in enumerate(read.rows(list), 1):
        where = f"Question {number}"
        video = read.text(row, "video_id", where)
        if row.get("question_deleted"):
            continue
        kind = _inner(read, row, "type", where)
        items.append(
            read.item(
                f"{video}/{read.text(row, 'question_id', where)}",
                read.text(row, "anser", where),  # the publisher's spelling
                (),
                video=read.clip(*(f"{p}/{video}.mp4" for p in (*places, "videos"))),
                question=_filled(read, row, where),
                category=kind[0] if kind else None,
                groups={"kind": kind[1] if len(kind) > 1 else ""},
            )
        )
    return read.found(items)


def _inner(read: Reader, row: dict[str, Any], name: str, where: str) -> list[str]:
    """Return a list that is written as JSON inside a string."""
    value = row.get(name)
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise UsageError(f"{where}: {name} is no list.", path=read.file)
    return [str(part) for part in found]


def _filled(read: Reader, row: dict[str, Any], where: str) -> str:
    """Return a question with its slots, like <Object>, filled in order."""
    question = read.text(row, "question_content", where)
    values = _inner(read, row, "templ_values", where)
    slots = len(_SLOT.findall(question))
    if slots != len(values):
        raise UsageError(
            f"{where}: {slots} slots in the question, {len(values)} values.", path=read.file
        )
    rest = iter(values)
    return _SLOT.sub(lambda _: next(rest), question)
