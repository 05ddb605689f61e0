"""What was measured of a paper's table, beside what the paper prints: Markdown and JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.papers.rows import Column, Row, Table
from omnidrop.evaluation.runner import UNPRUNED
from omnidrop.evaluation.summary import CellRow, PairRow, Summary, summarise

SCHEMA = "omnidrop.paper-table/1"
UNKNOWN = "not known"
DASH = "–"


@dataclass(frozen=True)
class Measured:
    """A table with the results of some of its sets.

    Attributes
    ----------
    table : Table
    sets : mapping of str to Summary
        Set → what `omnidrop eval` found.
    """

    table: Table
    sets: Mapping[str, Summary]

    def cell(self, row: Row, name: str) -> CellRow | None:
        """Return what a row came to on a set; None where it did not run or nothing was answered."""
        if name not in self.sets or not row.runs:
            return None
        found = self.sets[name].row(row.key, row.made().budget)
        return None if found is None or found.accuracy is None else found

    def pair(self, row: Row, name: str) -> PairRow | None:
        """Return a row's paired difference to the unpruned model on a set."""
        if self.cell(row, name) is None:
            return None
        for pair in self.sets[name].pairs:
            if (pair.label, pair.baseline, pair.axis) == (row.key, UNPRUNED, "all"):
                return pair
        return None

    def mean(self, row: Row) -> float | None:
        """Return the mean accuracy over all of the table's sets; None unless each was measured."""
        cells = [self.cell(row, column.set) for column in self.table.columns]
        right = [cell.accuracy for cell in cells if cell is not None and cell.accuracy is not None]
        return statistics.fmean(right) if len(right) == len(self.table.columns) else None

    def of_full(self, row: Row) -> float | None:
        """Return that mean as a share of the unpruned model's."""
        own, full = self.mean(row), self.mean(self.table.rows[0])
        return None if own is None or not full else own / full


def measure(table: Table, out: Path) -> Measured:
    """Read the results of every set of a table that is in a folder.

    Parameters
    ----------
    table : Table
    out : Path
        Holds a folder of `omnidrop eval` for each set, called by the set's name.

    Raises
    ------
    UsageError
        If a folder holds something else.
    """
    there = [c.set for c in table.columns if (out / c.set / "records.jsonl").is_file()]
    return Measured(table, {name: summarise(out / name, baselines=(UNPRUNED,)) for name in there})


def change(table: Table, row: Row, name: str) -> float | None:
    """Return a row's published difference to the unpruned model on a set, in points."""
    own, full = row.published.right.get(name), table.rows[0].published.right.get(name)
    return None if own is None or full is None or row.full else own - full


def otherwise(column: Column, summary: Summary) -> list[str]:
    """Return what a set was asked with where that is not as published."""
    setup = summary.setup
    was = {**setup, **setup.get("clip", {})}
    said = [
        f"{name} {was.get(name)!r} instead of {value!r}"
        for name, value in asdict(column.asked).items()
        if value is not None and was.get(name) != value
    ]
    if was.get("score") == "logits":
        said.append("choices ranked by their logits instead of written replies")
    return said


def markdown(found: Measured) -> str:
    """Return the table as Markdown; without results, what is published."""
    table = found.table
    lines = [f"# {table.title}", "", f"Published: <{table.paper}>.", ""]
    lines += _models(found)
    if found.sets:
        for column in table.columns:
            if column.set in found.sets:
                lines += [f"## {column.title}", ""]
                if said := otherwise(column, found.sets[column.set]):
                    lines += [f"Not asked as published: {'; '.join(said)}.", ""]
                lines += [*_set_rows(found, column.set), ""]
    else:
        lines += [*_published_rows(table), ""]
    lines += _means(found)
    notes = [f"{row.title}: {row.left_out or row.differs}" for row in _noted(table)]
    for title, said in (
        ("Rows that differ or are left out", notes),
        ("Differences to the paper's evaluation", table.differs),
        ("Not known", table.unknown),
        ("Sources", table.sources),
    ):
        if said:
            lines += [f"## {title}", "", *(f"- {text}" for text in said), ""]
    return "\n".join(lines)


def document(found: Measured) -> dict[str, Any]:
    """Return the table as plain values; shares between 0 and 1, published figures as printed."""
    table = found.table
    return {
        "schema": SCHEMA,
        "table": table.name,
        "title": table.title,
        "paper": table.paper,
        "published_model": table.model,
        "sets": {
            name: {**_about(summary), "otherwise": otherwise(table.column(name), summary)}
            for name, summary in found.sets.items()
        },
        "rows": [_row_document(found, row) for row in table.rows],
        "differs": list(table.differs),
        "unknown": list(table.unknown),
        "sources": list(table.sources),
    }


def _row_document(found: Measured, row: Row) -> dict[str, Any]:
    return {
        "key": row.key,
        "title": row.title,
        "settings": {"name": row.made().name, **row.made().settings()} if row.runs else None,
        "left_out": row.left_out or None,
        "differs": row.differs or None,
        "published": {
            "right_percent": dict(row.published.right),
            "mean_percent": row.published.mean,
            "of_full_percent": row.published.of_full,
            "flops": row.published.flops,
        },
        "measured": {name: _cell_document(found, row, name) for name in found.sets},
        "mean": found.mean(row),
        "of_full": found.of_full(row),
    }


def _cell_document(found: Measured, row: Row, name: str) -> dict[str, Any] | None:
    cell, pair = found.cell(row, name), found.pair(row, name)
    if cell is None:
        return None
    own: dict[str, Any] = {
        "answered": cell.answered,
        "failed": cell.failed,
        "refused": cell.refused,
        "accuracy": cell.accuracy,
        "low": cell.low,
        "high": cell.high,
        "published_inside": _inside(row.published.right.get(name), cell),
        "realised": cell.realised,
        "flops": cell.flops,
    }
    if pair is not None:
        own["change"] = {"difference": pair.difference, "low": pair.low, "high": pair.high}
        own["change"]["published_percent"] = change(found.table, row, name)
    return own


def _about(summary: Summary) -> dict[str, Any]:
    """Return what a set was measured with."""
    keys = ("set", "style", "system", "max_new_tokens", "clip", "model")
    return {key: summary.setup.get(key) for key in keys}


def _models(found: Measured) -> list[str]:
    """Return a sentence on each model that was measured."""
    names = dict.fromkeys(
        f"`{about['name']}` ({', '.join(str(about[k]) for k in keys if about.get(k))})"
        for summary in found.sets.values()
        for about in [summary.setup["model"]]
        for keys in [("dtype", "quantization", "device")]
    )
    said = f"Measured with {' and '.join(names)}; the figures are of `{found.table.model}`."
    return [said, ""] if names else []


def _noted(table: Table) -> list[Row]:
    return [row for row in table.rows if row.left_out or row.differs]


def _title(row: Row) -> str:
    """Return a row's title, marked if a note says more."""
    return f"{row.title} *" if row.left_out or row.differs else row.title


def _set_rows(found: Measured, name: str) -> list[str]:
    head = (
        "row",
        "published, %",
        "measured, % (95 % interval)",
        "published inside",
        "change published",
        "change measured, points (95 % interval)",
        "prefill FLOPs published / measured",
        "mean over layers",
        "questions",
    )
    lines = [f"| {' | '.join(head)} |", "|---|" + "---|" * (len(head) - 1)]
    for row in found.table.rows:
        own = row.published.right.get(name)
        cell, pair = found.cell(row, name), found.pair(row, name)
        printed = change(found.table, row, name)
        cells = [_title(row), UNKNOWN if own is None else f"{own:g}"]
        if cell is None:
            cells += ["left out" if row.left_out else "not measured", *[DASH] * 6]
        else:
            inside = _inside(own, cell)
            cells += [
                f"{_percent(cell.accuracy)} ({_percent(cell.low)} to {_percent(cell.high)})",
                DASH if inside is None else "yes" if inside else "no",
                DASH if printed is None else f"{printed:+.2f}",
                _points(pair),
                f"{_share(row.published.flops)} / {_share(cell.flops)}",
                _share(cell.realised),
                _counts(cell),
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _published_rows(table: Table) -> list[str]:
    """Return the published accuracies, a column for each set."""
    head = ["row", *(f"{column.title}, %" for column in table.columns), "prefill FLOPs"]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---|" * (len(head) - 1)]
    for row in table.rows:
        own = [row.published.right.get(column.set) for column in table.columns]
        cells = [_title(row), *(UNKNOWN if x is None else f"{x:g}" for x in own)]
        lines.append(f"| {' | '.join([*cells, _share(row.published.flops)])} |")
    return lines


def _means(found: Measured) -> list[str]:
    """Return the means over all sets, where the paper prints some."""
    table = found.table
    rows = [row for row in table.rows if row.published.of_full is not None]
    if not rows:
        return []
    lines = ["## Means over all sets", ""]
    if found.sets and found.mean(table.rows[0]) is None:
        missing = [c.title for c in table.columns if found.cell(table.rows[0], c.set) is None]
        lines += [f"Not measured without {', '.join(missing)}.", ""]
    lines += [
        "| row | published, % | measured, % | of unpruned, published | of unpruned, measured |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        mean = UNKNOWN if row.published.mean is None else f"{row.published.mean:g}"
        cells = [_title(row), mean, _percent(found.mean(row)), f"{row.published.of_full:g} %"]
        share = found.of_full(row)
        lines.append(
            f"| {' | '.join([*cells, DASH if share is None else f'{100 * share:.1f} %'])} |"
        )
    return [*lines, ""]


def _inside(own: float | None, cell: CellRow) -> bool | None:
    """Return whether a published figure lies in the interval of a measured one."""
    if own is None or cell.low is None or cell.high is None:
        return None
    return 100 * cell.low <= own <= 100 * cell.high


def _percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.1f}"


def _points(pair: PairRow | None) -> str:
    """Return a paired difference in points, with its interval."""
    if pair is None:
        return DASH
    own, low, high = (100 * x for x in (pair.difference, pair.low, pair.high))
    return f"{own:+.1f} ({low:+.1f} to {high:+.1f})"


def _share(share: float | None) -> str:
    return DASH if share is None else f"{share:.3f}"


def _counts(cell: CellRow) -> str:
    """Return how many questions were answered, and how many were not."""
    others = [
        f"{count} {what}" for count, what in ((cell.failed, "failed"), (cell.refused, "refused"))
        if count
    ]  # fmt: skip
    return f"{cell.answered} ({', '.join(others)})" if others else f"{cell.answered}"
