"""Summary of a run's records: accuracy with intervals, cost, and paired differences.

Errors are counted separately, never as wrong answers. A cell that a method refused has no accuracy.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omnidrop.errors import UsageError
from omnidrop.evaluation.records import ANSWERED, FAILED, REFUSED, Record, merge
from omnidrop.evaluation.replies import (
    Cells,
    Change,
    KeptRow,
    Unread,
    changed_of,
    kept_of,
    unread_of,
    unread_warning,
)
from omnidrop.evaluation.runner import UNPRUNED
from omnidrop.evaluation.stats import bootstrap, holm, paired, wilson

SCHEMA = "omnidrop.eval-summary/1"

#: The group of all questions, as (axis, label).
ALL = ("all", "all")


@dataclass(frozen=True)
class CellRow:
    """One method at one budget on one group of questions.

    Attributes
    ----------
    label : str
    method : str
        Name of the method behind the label.
    budget : float
        As asked.
    axis, group : str
        Which questions: ("all", "all"), ("category", …) or a further label of the set.
    answered, failed, refused, unread : int
        Questions; `unread` are replies that named no choice; they count as wrong.
    right : float
        Questions answered rightly; the mean over the seeds.
    accuracy, low, high : float or None
        Share of right answers, with Wilson's 95 % interval; None if none was answered.
    realised : float or None
        Mean realised budget.
    flops : float or None
        FLOPs of the LLM prefill, summed over questions, as a share of the unpruned model's.
    kv : float or None
        Bytes of the KV cache after prefill, likewise.
    prefill_seconds, selection_seconds, first_token_seconds : float or None
        Medians; the first token's excludes opening and encoding the clip.
    reachable : tuple of float or None
        Range that all refusing clips could reach: highest low end, lowest high end.
    chance : float or None
        Share that a guess among the choices gets right; None if not every record says so.
    seeds : int
        How often each question was answered, with another seed each time.
    spread : float or None
        Standard deviation of the accuracy from seed to seed; None with one seed.
    """

    label: str
    method: str
    budget: float
    axis: str
    group: str
    answered: int
    right: float
    failed: int
    refused: int
    unread: int
    accuracy: float | None
    low: float | None
    high: float | None
    realised: float | None
    flops: float | None
    kv: float | None
    prefill_seconds: float | None
    selection_seconds: float | None
    first_token_seconds: float | None
    reachable: tuple[float, float] | None
    chance: float | None = None
    seeds: int = 1
    spread: float | None = None

    @property
    def guessing(self) -> bool:
        """Whether chance lies within the accuracy's interval, or above it."""
        return self.low is not None and self.chance is not None and self.low <= self.chance


@dataclass(frozen=True)
class PairRow:
    """Two cells on the questions that both answered.

    Attributes
    ----------
    label, budget : str, float
    baseline, baseline_budget : str, float
    matched : str
        How the baseline's budget was chosen: "budget" for the same, "flops" for the cheapest that
        costs at least as much, "unpruned".
    axis, group : str
    questions, clips, only_first, only_second : int
        `only_first`: right in the cell, wrong in the baseline.
        With several seeds, these and p are of the first.
    difference, low, high : float
        Accuracy minus the baseline's, with a 95 % interval (bootstrap over clips); of the means
        over the seeds.
    p, p_holm : float
        McNemar's exact p, and the same with Holm's correction for all pairs of the group.
    """

    label: str
    budget: float
    baseline: str
    baseline_budget: float
    matched: str
    axis: str
    group: str
    questions: int
    clips: int
    only_first: int
    only_second: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float = 1.0


@dataclass(frozen=True)
class Summary:
    """Everything a table or figure shows.

    Attributes
    ----------
    setup : mapping
        What all records share.
    cells : tuple of CellRow
    pairs : tuple of PairRow
    apart : tuple of (str, str)
        Groups that tables show next to the whole.
    failed : int
        Questions that ended in an error, over all cells.
    errors : tuple of (str, int)
        Error messages and their counts, most frequent first.
    damaged : int
        Damaged lines of the records.
    versions : tuple of mapping
        Each distinct set of library versions.
    unread : tuple of Unread
        Replies that named no choice, most frequent first.
    changed : tuple of Change
        Answers that differ from the unpruned model's, of the first seed.
    kept : tuple of KeptRow
        Tokens that enter each layer; only of records that say so.
    """

    setup: Mapping[str, Any]
    cells: tuple[CellRow, ...]
    pairs: tuple[PairRow, ...]
    apart: tuple[tuple[str, str], ...]
    failed: int
    errors: tuple[tuple[str, int], ...]
    damaged: int
    versions: tuple[Mapping[str, str], ...]
    unread: tuple[Unread, ...] = ()
    changed: tuple[Change, ...] = ()
    kept: tuple[KeptRow, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a reader must know before any number of the summary."""
        found = []
        control = self.row(UNPRUNED, 1.0)
        if control is not None and control.guessing and control.accuracy is not None:
            chance = 100 * (control.chance or 0.0)
            found.append(
                f"THE UNPRUNED MODEL IS NOT ABOVE CHANCE: {100 * control.accuracy:.1f} % right "
                f"({100 * (control.low or 0):.1f} to {100 * (control.high or 0):.1f}) of "
                f"{control.answered} questions, and guessing gets {chance:.1f} %. Comparing "
                "methods says nothing here. Ask more questions, put them in another style "
                "(--style), or take a model that can answer them."
            )
        if self.unread:
            found.append(unread_warning(self.unread))
        return tuple(found)

    def row(self, label: str, budget: float, group: tuple[str, str] = ALL) -> CellRow | None:
        """Return one cell's row of a group, or None."""
        for cell in self.cells:
            if (cell.label, cell.budget, cell.axis, cell.group) == (label, budget, *group):
                return cell
        return None

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the labels: the control, then in order of running."""
        return tuple(dict.fromkeys(cell.label for cell in self.cells))

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values, `schema` first."""
        return {"schema": SCHEMA, **asdict(self), "warnings": self.warnings}


def summarise(
    folders: Path | Iterable[Path],
    *,
    baselines: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    seed: int = 0,
) -> Summary:
    """Summarise the records of one or more folders.

    Parameters
    ----------
    folders : Path or iterable of Path
        The `out` of `run`.
    baselines : sequence of str, optional
        Labels that every other cell is compared with; default the control, and random if it ran.
    only : sequence of str, optional
        Ids of the questions to count; default all.
    seed : int
        Of the bootstrap.

    Raises
    ------
    UsageError
        If a folder holds no evaluation, setups differ, or a baseline did not run.
    """
    paths = [folders] if isinstance(folders, Path) else list(folders)
    setup, records, damaged = merge(paths)
    if only is not None:
        wanted = set(only)
        records = [record for record in records if record["id"] in wanted]
    if not records:
        raise UsageError("There are no records yet.", path=paths[0] if paths else None)
    by_cell = _by_cell([record for record in records if not record.get("draw")])
    again = _again(records)
    labels = list(dict.fromkeys(label for label, _ in by_cell))
    if baselines is None:
        baselines = [name for name in (UNPRUNED, "random") if name in labels]
    for name in baselines:
        if name not in labels:
            raise UsageError(f"The baseline {name!r} did not run.", hint=f"Ran: {_list(labels)}.")
    groups = _groups(records)
    failures = [_short(record) for record in records if record["status"] == FAILED]
    errors = sorted(((t, failures.count(t)) for t in set(failures)), key=lambda e: (-e[1], e[0]))
    cells = tuple(
        _cell_row(label, budget, group, inside, again.get((label, budget), []))
        for (label, budget), own in by_cell.items()
        for group in groups
        if (inside := [r for r in own.values() if _inside(r, group)])
    )
    versions = {tuple(r["versions"].items()): r["versions"] for r in records if "versions" in r}
    return Summary(
        setup=setup,
        cells=cells,
        pairs=_pairs(by_cell, cells, groups, baselines, seed, again),
        apart=tuple((axis, group) for axis, group in setup.get("apart", [])),
        failed=len(failures),
        errors=tuple(errors),
        damaged=damaged,
        versions=tuple(versions.values()),
        unread=unread_of(records),
        changed=changed_of(by_cell, UNPRUNED),
        kept=kept_of(by_cell),
    )


#: Records of the draws after the first, by cell.
_Again = dict[tuple[str, float], list[Record]]


def _again(records: list[Record]) -> _Again:
    found: _Again = {}
    for record in records:
        if record.get("draw"):
            found.setdefault((record["label"], record["asked"]), []).append(record)
    return found


def _rates(records: Iterable[Record]) -> dict[str, list[bool]]:
    """Return the marks of each question, over the draws."""
    found: dict[str, list[bool]] = {}
    for record in records:
        if record["status"] == ANSWERED:
            found.setdefault(record["id"], []).append(record["right"])
    return found


def _spread(first: list[Record], again: list[Record]) -> tuple[int, float | None]:
    """Return the number of draws of a group's questions, and the accuracy's deviation over them."""
    by_draw: dict[int, list[bool]] = {}
    names = {r["id"] for r in first}
    for record in (*first, *(r for r in again if r["id"] in names)):
        if record["status"] == ANSWERED:
            by_draw.setdefault(record.get("draw", 0), []).append(record["right"])
    shares = [statistics.fmean(marks) for marks in by_draw.values()]
    return max(len(shares), 1), statistics.stdev(shares) if len(shares) > 1 else None


def _by_cell(records: list[Record]) -> Cells:
    """Return the records by cell and id: control first, budgets descending."""
    found: Cells = {}
    for record in records:
        found.setdefault((record["label"], record["asked"]), {})[record["id"]] = record
    order = [UNPRUNED, *dict.fromkeys(label for label, _ in found)]
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0][0]), -item[0][1])))


def _groups(records: list[Record]) -> list[tuple[str, str]]:
    """Return every group of questions: all, categories, then the set's further labels."""
    found = {("category", r["category"]) for r in records if r["category"] is not None}
    further = {pair for r in records for pair in r["groups"].items()}
    return [ALL, *sorted(found), *sorted(further)]


def _inside(record: Record, group: tuple[str, str]) -> bool:
    axis, label = group
    if group == ALL:
        return True
    value = record["category"] if axis == "category" else record["groups"].get(axis)
    return bool(value == label)


def _cell_row(
    label: str,
    budget: float,
    group: tuple[str, str],
    records: list[Record],
    again: list[Record],
) -> CellRow:
    done = [r for r in records if r["status"] == ANSWERED]
    names = {r["id"] for r in done}
    marks = _rates([*done, *(r for r in again if r["id"] in names)])
    right = sum(map(statistics.fmean, marks.values()))
    seeds, spread = _spread(done, again)
    low, high = wilson(right, len(done))
    known = all("chance" in r for r in done)
    ranges = [r["reachable"] for r in records if r["status"] == REFUSED and r.get("reachable")]

    def mean(value: Callable[[Record], float]) -> float | None:
        return statistics.fmean(map(value, done)) if done else None

    def median(stage: str) -> float | None:
        return statistics.median(r["seconds"][stage] for r in done) if done else None

    def share(part: str, whole: str) -> float | None:
        total = sum(r[whole] for r in done)
        return sum(r[part] for r in done) / total if total else None

    return CellRow(
        label=label,
        method=records[0]["method"]["name"],
        budget=budget,
        axis=group[0],
        group=group[1],
        answered=len(done),
        right=right,
        failed=sum(r["status"] == FAILED for r in records),
        refused=sum(r["status"] == REFUSED for r in records),
        unread=sum(r["said"] is None for r in done),
        accuracy=right / len(done) if done else None,
        low=low if done else None,
        high=high if done else None,
        realised=mean(lambda r: r["realised"]),
        flops=share("flops", "flops_unpruned"),
        kv=share("kv_bytes", "kv_bytes_unpruned"),
        prefill_seconds=median("prefill"),
        selection_seconds=median("selection"),
        first_token_seconds=median("first_token"),
        reachable=(max(r[0] for r in ranges), min(r[1] for r in ranges)) if ranges else None,
        chance=mean(lambda r: r["chance"]) if known else None,
        seeds=seeds,
        spread=spread,
    )


def _pairs(
    by_cell: Cells,
    cells: tuple[CellRow, ...],
    groups: list[tuple[str, str]],
    baselines: Sequence[str],
    seed: int,
    again: _Again,
) -> tuple[PairRow, ...]:
    """Compare every cell with each baseline, on all questions and every group except categories."""
    costs = {(c.label, c.budget): c.flops for c in cells if (c.axis, c.group) == ALL}
    matches = [
        (cell, other, how)
        for baseline in baselines
        for cell in by_cell
        if cell[0] not in (baseline, UNPRUNED)
        for other, how in _matched(cell, baseline, by_cell, costs)
    ]
    found: list[PairRow] = []
    for group in groups:
        if group[0] == "category":
            continue
        rows = [
            row
            for cell, other, how in matches
            if (row := _pair(cell, other, how, group, by_cell, seed, again)) is not None
        ]
        corrected = holm([row.p for row in rows])
        found += [replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)]
    return tuple(found)


def _matched(
    cell: tuple[str, float],
    baseline: str,
    by_cell: Cells,
    costs: Mapping[tuple[str, float], float | None],
) -> list[tuple[tuple[str, float], str]]:
    """Return the baseline's cell to compare with, and how it was matched; empty if none."""
    own = [key for key in by_cell if key[0] == baseline]
    if baseline == UNPRUNED:
        return [(key, "unpruned") for key in own]
    if (baseline, cell[1]) in by_cell:
        return [((baseline, cell[1]), "budget")]
    cost = costs.get(cell)
    if cost is None:
        return []
    dearer = [(c, key) for key in own if (c := costs.get(key)) is not None and c >= cost]
    return [(min(dearer)[1], "flops")] if dearer else []


def _pair(
    cell: tuple[str, float],
    other: tuple[str, float],
    matched: str,
    group: tuple[str, str],
    by_cell: Cells,
    seed: int,
    again: _Again,
) -> PairRow | None:
    both = [
        (record, by_cell[other][name])
        for name, record in by_cell[cell].items()
        if name in by_cell[other]
        and record["status"] == ANSWERED == by_cell[other][name]["status"]
        and _inside(record, group)
    ]
    if not both:
        return None
    clips = [a.get("source", a["clip"]) for a, _ in both]
    found = paired([a["right"] for a, _ in both], [b["right"] for _, b in both], clips, seed=seed)
    if cell in again or other in again:
        ones, others = (
            _rates([*by_cell[key].values(), *again.get(key, ())]) for key in (cell, other)
        )
        apart = [
            statistics.fmean(ones[a["id"]]) - statistics.fmean(others[b["id"]]) for a, b in both
        ]
        low, high = bootstrap(apart, clips, seed=seed)
        found = replace(found, difference=statistics.fmean(apart), low=low, high=high)
    return PairRow(*cell, *other, matched, *group, **asdict(found))


def _short(record: Record) -> str:
    """Return an error's type and the start of its message."""
    return f"{record['error']}: {record['message']}"[:160]


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
