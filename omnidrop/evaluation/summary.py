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
from omnidrop.evaluation.runner import UNPRUNED
from omnidrop.evaluation.stats import holm, paired, wilson

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
    answered, right, failed, refused, unread : int
        Questions; `unread` are replies that named no choice; they count as wrong.
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
    """

    label: str
    method: str
    budget: float
    axis: str
    group: str
    answered: int
    right: int
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
    difference, low, high : float
        Accuracy minus the baseline's, with a 95 % interval (bootstrap over clips).
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
    """

    setup: Mapping[str, Any]
    cells: tuple[CellRow, ...]
    pairs: tuple[PairRow, ...]
    apart: tuple[tuple[str, str], ...]
    failed: int
    errors: tuple[tuple[str, int], ...]
    damaged: int
    versions: tuple[Mapping[str, str], ...]

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
        return {"schema": SCHEMA, **asdict(self)}


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
    by_cell = _by_cell(records)
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
        _cell_row(label, budget, group, inside)
        for (label, budget), own in by_cell.items()
        for group in groups
        if (inside := [r for r in own.values() if _inside(r, group)])
    )
    versions = {tuple(r["versions"].items()): r["versions"] for r in records if "versions" in r}
    return Summary(
        setup=setup,
        cells=cells,
        pairs=_pairs(by_cell, cells, groups, baselines, seed),
        apart=tuple((axis, group) for axis, group in setup.get("apart", [])),
        failed=len(failures),
        errors=tuple(errors),
        damaged=damaged,
        versions=tuple(versions.values()),
    )


_Cells = dict[tuple[str, float], dict[str, Record]]


def _by_cell(records: list[Record]) -> _Cells:
    """Return the records by cell and id: control first, budgets descending."""
    found: _Cells = {}
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


def _cell_row(label: str, budget: float, group: tuple[str, str], records: list[Record]) -> CellRow:
    done = [r for r in records if r["status"] == ANSWERED]
    right = sum(r["right"] for r in done)
    low, high = wilson(right, len(done))
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
    )


def _pairs(
    by_cell: _Cells,
    cells: tuple[CellRow, ...],
    groups: list[tuple[str, str]],
    baselines: Sequence[str],
    seed: int,
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
            if (row := _pair(cell, other, how, group, by_cell, seed)) is not None
        ]
        corrected = holm([row.p for row in rows])
        found += [replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)]
    return tuple(found)


def _matched(
    cell: tuple[str, float],
    baseline: str,
    by_cell: _Cells,
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
    by_cell: _Cells,
    seed: int,
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
    found = paired(
        [a["right"] for a, _ in both],
        [b["right"] for _, b in both],
        [a.get("source", a["clip"]) for a, _ in both],
        seed=seed,
    )
    return PairRow(*cell, *other, matched, *group, **asdict(found))


def _short(record: Record) -> str:
    """Return an error's type and the start of its message."""
    return f"{record['error']}: {record['message']}"[:160]


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
