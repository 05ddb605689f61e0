"""What records say besides right and wrong: unread replies, changed answers, tokens kept."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from omnidrop.evaluation.records import ANSWERED, Record
from omnidrop.evaluation.scoring import normal

#: Records by cell (label and budget) and id.
Cells = dict[tuple[str, float], dict[str, Record]]

#: How many different replies that named no choice a warning shows.
SHOWN = 3


@dataclass(frozen=True)
class Unread:
    """A reply that named no choice, and how often it was given."""

    reply: str
    count: int


@dataclass(frozen=True)
class Change:
    """A question that a method answered differently from the unpruned model.

    Attributes
    ----------
    label, budget : str, float
    id, clip, question : str
    answer : str
        The right one.
    unpruned, pruned : str
        What was replied.
    unpruned_right, pruned_right : bool
    """

    label: str
    budget: float
    id: str
    clip: str
    question: str
    answer: str
    unpruned: str
    pruned: str
    unpruned_right: bool
    pruned_right: bool


@dataclass(frozen=True)
class KeptRow:
    """Tokens that enter one layer in one cell: means over the questions, and their share."""

    label: str
    budget: float
    layer: int
    audio: float
    video: float
    share: float


def unread_of(records: list[Record]) -> tuple[Unread, ...]:
    """Count the replies that named no choice."""
    counts = Counter(r["reply"] for r in records if r["status"] == ANSWERED and r["said"] is None)
    return tuple(Unread(reply, count) for reply, count in counts.most_common())


def changed_of(by_cell: Cells, unpruned: str) -> tuple[Change, ...]:
    """List the answers that differ from those of the label `unpruned`."""
    control = next((own for (label, _), own in by_cell.items() if label == unpruned), {})
    return tuple(
        Change(
            label=label,
            budget=budget,
            id=name,
            clip=record["video"],
            question=record.get("question", ""),
            answer=record["answer"],
            unpruned=usual["reply"],
            pruned=record["reply"],
            unpruned_right=usual["right"],
            pruned_right=record["right"],
        )
        for (label, budget), own in by_cell.items()
        if label != unpruned
        for name, record in own.items()
        if (usual := control.get(name)) is not None
        and record["status"] == ANSWERED == usual["status"]
        and _what(record) != _what(usual)
    )


def _what(record: Record) -> str:
    """Return what a reply says, so that B and (B) are one answer."""
    return normal(record["reply"] if record["said"] is None else record["said"])


def kept_of(by_cell: Cells) -> tuple[KeptRow, ...]:
    """Average the tokens that enter each layer, over the questions of a cell."""
    rows = []
    for (label, budget), own in by_cell.items():
        found = [r for r in own.values() if r["status"] == ANSWERED and "kept" in r]
        if not found or len({len(r["kept"]["audio"]) for r in found}) != 1:
            continue
        total = statistics.fmean(r["tokens"]["audio"] + r["tokens"]["video"] for r in found)
        for layer in range(len(found[0]["kept"]["audio"])):
            audio, video = (
                statistics.fmean(r["kept"][kind][layer] for r in found)
                for kind in ("audio", "video")
            )
            share = (audio + video) / total if total else 1.0
            rows.append(KeptRow(label, budget, layer, audio, video, share))
    return tuple(rows)


def unread_warning(unread: Sequence[Unread]) -> str:
    """Return one sentence: how many replies named no choice, with the most frequent ones."""
    total = sum(reply.count for reply in unread)
    shown = ", ".join(f"{_quoted(reply.reply)} ({reply.count})" for reply in unread[:SHOWN])
    shown += f" and {len(unread) - SHOWN} more" if len(unread) > SHOWN else ""
    what = (
        "replies named none of the choices and count"
        if total > 1
        else ("reply named none of the choices and counts")
    )
    return f"{total} {what} as wrong: {shown}."


def _quoted(text: str) -> str:
    """Return a reply in quotes, on one line and not too long."""
    line = " ".join(text.split())
    line = line if len(line) <= 60 else line[:59] + "\N{HORIZONTAL ELLIPSIS}"
    return (
        f"\N{LEFT DOUBLE QUOTATION MARK}{line}\N{RIGHT DOUBLE QUOTATION MARK}"
        if line
        else "nothing"
    )
