"""AVSynth: the built-in questions about synthetic clips.

Clips are rendered from seeds by `samples/make_clips.py`; only the questions are shipped.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from omnidrop.errors import UsageError
from omnidrop.evaluation.items import Item, QuestionSet
from omnidrop.evaluation.question_files import read_items

NAME = "avsynth"


def avsynth_questions() -> Path:
    """Return the built-in questions: in an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[2]
    shipped = package / "_avsynth" / "test.jsonl"
    return shipped if shipped.is_file() else package.parent / "samples" / "avsynth" / "test.jsonl"


def avsynth(folder: Path | None, videos: Path | None) -> QuestionSet:
    """Read AVSynth: the built-in questions, or those of a folder of rendered clips.

    The category is what a question needs (picture, sound, both); its evidence lies in short events
    ("sparse") or lasts ("long").
    """
    path, name = avsynth_questions(), NAME
    if folder is not None and (folder / "test.jsonl").is_file():
        own = folder / "test.jsonl"
        if own.read_bytes() != path.read_bytes():  # of other seeds: results are not the same set's
            path, name = own, f"{NAME}-{folder.resolve().name}"
    base = videos or folder or path.parent
    items = [_avsynth_item(item, base) for item in read_items(path, base)]
    if not any(item.video.is_file() for item in items):
        raise UsageError(
            "The clips of avsynth are not there; they are made from seeds, not shipped.",
            path=base,
            hint="In a checkout of omnidrop, run `python samples/make_clips.py --out avsynth`, "
            "then `omnidrop eval avsynth --videos avsynth`.",
        )
    note = "Synthetic clips; answers of the demo model are words."
    return QuestionSet(name, tuple(items), path, note, "plain", (("evidence", "sparse"),))


def _avsynth_item(item: Item, base: Path) -> Item:
    extra = item.extra
    beside = base / item.video.name
    return replace(
        item,
        video=beside if not item.video.is_file() and beside.is_file() else item.video,
        category=str(extra.get("family", item.category)),
        groups={
            "evidence": "sparse" if extra.get("sparse") else "long",
            "wording": str(extra.get("wording", "seen")),
        },
        extra={**extra, "kind": item.category},
    )
