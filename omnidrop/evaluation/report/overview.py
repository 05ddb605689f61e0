"""Figures of a collection of rows: by settings, by cause of failure, along the clips.

Rows of different settings are never mixed into one figure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from omnidrop.evaluation.report.collection import NONE, STATUSES, Collection
from omnidrop.evaluation.report.rows import ANSWERED, FAILED, PARTS, REFUSED

SCHEMA = "omnidrop.report/1"
#: Bars of a distribution.
BARS = 20


@dataclass(frozen=True)
class Spread:
    """How values are distributed.

    Attributes
    ----------
    count : int
    least, most, mean : float
    median, high : float
        The middle value, and the one that a tenth of the values exceed.
    bars : tuple of int
        Values in equal steps from `least` to `most`.
    """

    count: int
    least: float
    median: float
    high: float
    most: float
    mean: float
    bars: tuple[int, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """Return the distribution of values, without those that are missing; None without any."""
        known = sorted(value for value in values if value != NONE)
        if not known:
            return None
        least, most = known[0], known[-1]
        step = (most - least) / BARS
        bars = [0] * BARS
        for value in known:
            bars[min(int((value - least) / step), BARS - 1) if step > 0 else 0] += 1
        return cls(
            count=len(known),
            least=least,
            median=_at(known, 0.5),
            high=_at(known, 0.9),
            most=most,
            mean=math.fsum(known) / len(known),
            bars=tuple(bars) if step > 0 else (len(known),),
        )


@dataclass(frozen=True)
class GroupFigures:
    """Figures of the rows of one settings.

    Attributes
    ----------
    number : int
        From 1.
    name : str
        Method, budget and model, in words.
    other : dict
        Settings in which this group differs from others of its name.
    rows, clips, answered, failed, refused : int
    right, judged : int
        Right answers, and rows of which that is known.
    asked : float or None
    kept, seconds, probability : Spread or None
    along : tuple of float or None
        Mean share of tokens kept in each of PARTS equal parts of the clips; empty if unknown.
    """

    number: int
    name: str
    other: dict[str, Any]
    rows: int
    clips: int
    answered: int
    failed: int
    refused: int
    right: int
    judged: int
    asked: float | None
    kept: Spread | None
    seconds: Spread | None
    probability: Spread | None
    along: tuple[float | None, ...]


@dataclass(frozen=True)
class Cause:
    """Why rows failed.

    Attributes
    ----------
    text : str
    count, clips : int
    example : int
        Number of the first such row in the collection.
    """

    text: str
    count: int
    clips: int
    example: int


@dataclass(frozen=True)
class Overview:
    """Figures of a collection.

    Attributes
    ----------
    rows, clips, answered, failed, refused : int
    groups : tuple of GroupFigures
        The largest first.
    causes : tuple of Cause
        Of failures, then of refusals; the most frequent first.
    left_out : int
        Rows that the selection leaves out.
    """

    rows: int
    clips: int
    answered: int
    failed: int
    refused: int
    groups: tuple[GroupFigures, ...]
    causes: tuple[Cause, ...]
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"schema": SCHEMA, **asdict(self)}


def overview(found: Collection) -> Overview:
    """Return the figures of the rows that are shown."""
    chosen = found.chosen
    by_group: dict[int, list[int]] = {}
    for i in chosen:
        by_group.setdefault(found.group[i], []).append(i)
    by_name: dict[str, list[dict[str, Any]]] = {}
    for g in by_group:
        by_name.setdefault(name_of(found.groups[g]), []).append(found.groups[g])
    differing = {name: differences(settings) for name, settings in by_name.items()}
    ordered = sorted(by_group.items(), key=lambda item: (-len(item[1]), item[0]))
    groups = tuple(
        _figures(found, number, found.groups[g], numbers, differing[name_of(found.groups[g])])
        for number, (g, numbers) in enumerate(ordered, 1)
    )
    counts = Counter(STATUSES[found.status[i]] for i in chosen)
    replaced = sum(damage.replaced for damage in found.damage)
    return Overview(
        rows=len(chosen),
        clips=len({found.clip[i] for i in chosen}),
        answered=counts[ANSWERED],
        failed=counts[FAILED],
        refused=counts[REFUSED],
        groups=groups,
        causes=_causes(found, chosen),
        left_out=len(found) - replaced - len(chosen),
    )


def group_numbers(found: Collection) -> dict[int, int]:
    """Return the number that an overview gives each group of a collection."""
    counts = Counter(found.group[i] for i in found.chosen)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {group: number for number, (group, _) in enumerate(ordered, 1)}


def name_of(settings: dict[str, Any]) -> str:
    """Return method, budget and model of a group's settings in words."""
    method = settings.get("label") or settings.get("method.name")
    if not settings:
        return "settings not in the rows"
    parts = [str(method)] if method else []
    budget = settings.get("method.budget")
    if isinstance(budget, (int, float)) and not isinstance(budget, bool):
        share = f"{100 * budget:.3g} %"
        parts = [f"{parts[0]} {share}" if parts else share]
    model = settings.get("model.name")
    parts += [str(model)] if model else []
    return ", ".join(parts) or f"setup {settings.get('setup', 'not named')}"


def differences(groups: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Return the settings in which groups differ; those without any settings are left out."""
    told = [group for group in groups if group]
    names = dict.fromkeys(name for group in told for name in group)
    return tuple(n for n in names if len({repr(group.get(n)) for group in told}) > 1)


def _figures(
    found: Collection,
    number: int,
    settings: dict[str, Any],
    numbers: Sequence[int],
    differing: Sequence[str],
) -> GroupFigures:
    statuses = Counter(STATUSES[found.status[i]] for i in numbers)
    asked = {found.asked[i] for i in numbers if found.asked[i] != NONE}
    judged = [i for i in numbers if found.right[i] != 2]
    other = {name: settings.get(name) for name in differing}
    return GroupFigures(
        number=number,
        name=name_of(settings),
        other=other,
        rows=len(numbers),
        clips=len({found.clip[i] for i in numbers}),
        answered=statuses[ANSWERED],
        failed=statuses[FAILED],
        refused=statuses[REFUSED],
        right=sum(found.right[i] for i in judged),
        judged=len(judged),
        asked=asked.pop() if len(asked) == 1 else None,
        kept=Spread.of(found.kept[i] for i in numbers),
        seconds=Spread.of(found.seconds[i] for i in numbers),
        probability=Spread.of(found.probability[i] for i in numbers),
        along=_along(found, numbers),
    )


def _along(found: Collection, numbers: Sequence[int]) -> tuple[float | None, ...]:
    sums, counts = [0.0] * PARTS, [0] * PARTS
    for i in numbers:
        for part, share in enumerate(found.along_of(i)):
            if share is not None:
                sums[part] += share
                counts[part] += 1
    if not any(counts):
        return ()
    return tuple(s / c if c else None for s, c in zip(sums, counts, strict=True))


def _causes(found: Collection, chosen: Sequence[int]) -> tuple[Cause, ...]:
    by_cause: dict[tuple[bool, int], list[int]] = {}
    for i in chosen:
        if found.cause[i] >= 0:
            refused = STATUSES[found.status[i]] == REFUSED
            by_cause.setdefault((refused, found.cause[i]), []).append(i)
    ordered = sorted(by_cause.items(), key=lambda item: (item[0][0], -len(item[1])))
    return tuple(
        Cause(
            ("refused: " if refused else "") + found.causes[cause],
            len(numbers),
            len({found.clip[i] for i in numbers}),
            numbers[0],
        )
        for (refused, cause), numbers in ordered
    )


def _at(values: Sequence[float], share: float) -> float:
    """Return the value at a share of sorted values, between two where it falls between."""
    place = share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


__all__ = [
    "SCHEMA",
    "Cause",
    "GroupFigures",
    "Overview",
    "Spread",
    "differences",
    "group_numbers",
    "name_of",
    "overview",
]
