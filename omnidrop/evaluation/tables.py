"""A summary as tables of text, for terminals, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from omnidrop.evaluation.replies import Change, KeptRow
from omnidrop.evaluation.summary import ALL, CellRow, PairRow, Summary

DASH = "–"

#: Changed answers that a report lists; their file has all.
MOST_CHANGES = 50


@dataclass(frozen=True)
class Table:
    """A title, a header, and rows as long as the header."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def overview(summary: Summary, *, compact: bool = False) -> Table:
    """Return one row per method and budget: accuracy, and what it cost.

    Parameters
    ----------
    summary : Summary
    compact : bool
        For a narrow screen: whole percents in intervals, and fewer columns.
    """
    wide, digits = not compact, 0 if compact else 1
    columns: list[tuple[str, Callable[[CellRow], str]]] = [
        ("method", lambda c: c.label),
        ("budget", lambda c: share(c.budget)),
        ("realised", lambda c: percent(c.realised) if c.answered else reach(c)),
        ("n", lambda c: str(c.answered)),
        ("right, %", lambda c: interval(c, digits)),
        *((f"{group[1]}, %", _part(summary, group, digits)) for group in summary.apart),
        ("FLOPs, %", lambda c: percent(c.flops)),
    ]
    if any(cell.seeds > 1 for cell in summary.cells):
        columns.insert(5, ("± seeds", _spread))
    columns += [("KV cache, %", lambda c: percent(c.kv))] if wide else []
    columns += [("prefill, ms", _milliseconds)] if wide else []
    columns += [("errors", lambda c: str(c.failed or ""))] if summary.failed else []
    cells = [cell for cell in summary.cells if (cell.axis, cell.group) == ALL]
    notes = [
        "n questions answered; 95 % intervals (Wilson) in brackets; FLOPs of the LLM's prefill as "
        "a share of the unpruned one's; median time of a prefill; a dash is a budget that cannot "
        "be reached.",
    ]
    most = max((cell.seeds for cell in cells), default=1)
    if most > 1:
        notes.append(
            f"Methods that draw at random answered with {most} seeds: mean, and standard deviation "
            "from seed to seed."
        )
    partly = [cell for cell in cells if cell.refused and cell.answered]
    if partly:
        named = ", ".join(f"{c.label} at {share(c.budget)} ({c.refused})" for c in partly)
        notes.append(f"Refused on some clips, and counted on the others only: {named}.")
    if summary.failed:
        notes.append(f"{summary.failed} errors, not counted as answers.")
    return Table(
        "Accuracy and cost",
        tuple(name for name, _ in columns),
        tuple(tuple(show(cell) for _, show in columns) for cell in cells),
        " ".join(notes),
    )


def _part(summary: Summary, group: tuple[str, str], digits: int) -> Callable[[CellRow], str]:
    def show(cell: CellRow) -> str:
        part = summary.row(cell.label, cell.budget, group)
        return DASH if part is None else interval(part, digits)

    return show


def _spread(cell: CellRow) -> str:
    return DASH if cell.spread is None else f"{100 * cell.spread:.1f}"


def _milliseconds(cell: CellRow) -> str:
    return DASH if cell.prefill_seconds is None else f"{1000 * cell.prefill_seconds:.1f}"


def by_category(summary: Summary) -> Table:
    """Return one row per method and budget, one column per category and further group."""
    groups = list(dict.fromkeys((c.axis, c.group) for c in summary.cells))
    header = ("method", "budget", *(f"{group}" for _, group in groups))
    rows = []
    for cell in (c for c in summary.cells if (c.axis, c.group) == ALL):
        found = [summary.row(cell.label, cell.budget, group) for group in groups]
        rows.append(
            (
                cell.label,
                share(cell.budget),
                *(DASH if part is None else interval(part) for part in found),
            )
        )
    return Table("Right by category, %", header, tuple(rows))


def differences(summary: Summary, group: tuple[str, str] = ALL, *, unpruned: bool = True) -> Table:
    """Return one row per compared pair of a group; pairs with the unpruned model are optional."""
    rows = [
        (
            pair.label,
            share(pair.budget),
            against(pair),
            str(pair.questions),
            f"{100 * pair.difference:+.1f} [{100 * pair.low:+.1f}, {100 * pair.high:+.1f}]",
            f"{pair.only_first} : {pair.only_second}",
            p_value(pair.p),
            p_value(pair.p_holm),
        )
        for pair in summary.pairs
        if (pair.axis, pair.group) == group and (unpruned or pair.matched != "unpruned")
    ]
    header = ("method", "budget", "against", "n", "points", "b : c", "p", "p Holm")
    where = "all questions" if group == ALL else f"{group[0]}: {group[1]}"
    note = (
        "Points of accuracy on the same n questions with a 95 % bootstrap interval over clips; b "
        "questions are right only here and c only in the other; p is McNemar's exact test, which "
        "takes questions as independent, and corrected by Holm for all pairs of these questions."
    )
    note += "" if unpruned else " Those against the unpruned model are in the files."
    return Table(f"Paired differences, {where}", header, tuple(rows), note)


def against(pair: PairRow) -> str:
    """Return the baseline of a pair, with its budget if that differs."""
    if pair.matched == "flops":
        return f"{pair.baseline} at {share(pair.baseline_budget)} (no cheaper)"
    return pair.baseline


def changes(summary: Summary, most: int | None = None) -> Table:
    """Return one row per answer that pruning changed; the first `most`, evenly over the cells."""
    found = list(summary.changed)
    shown = found if most is None else found[:: max(1, -(-len(found) // most))]
    rows = [
        (
            change.label,
            share(change.budget),
            change.id,
            change.question,
            f"{_one_line(change.unpruned)} {_mark(change.unpruned_right)}",
            f"{_one_line(change.pruned)} {_mark(change.pruned_right)}",
        )
        for change in shown
    ]
    spoilt = sum(change.unpruned_right and not change.pruned_right for change in found)
    mended = sum(change.pruned_right and not change.unpruned_right for change in found)
    note = f"{len(found)} answers differ: {spoilt} are wrong only pruned, {mended} only unpruned."
    if len(rows) < len(found):
        note += f" {len(rows)} of them are shown; changed.csv has all."
    header = ("method", "budget", "id", "question", "unpruned", "pruned")
    return Table("Changed answers", header, tuple(rows), note)


def _one_line(text: str, most: int = 40) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _mark(right: bool) -> str:
    return "(right)" if right else "(wrong)"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as a percentage; a dash for None."""
    return DASH if value is None else f"{100 * value:.{digits}f}"


def share(value: float) -> str:
    """Return a budget as a percentage without trailing zeros."""
    return f"{100 * value:.3g}"


def interval(cell: CellRow, digits: int = 1) -> str:
    """Return a cell's accuracy and interval, the latter with so many digits."""
    if cell.accuracy is None:
        return DASH
    return f"{percent(cell.accuracy)} [{percent(cell.low, digits)}, {percent(cell.high, digits)}]"


def reach(cell: CellRow) -> str:
    """Return the budgets that could be reached instead of a refused one."""
    if cell.reachable is None:
        return DASH
    low, high = cell.reachable
    if high >= 1.0:
        return f"{DASH} (≥ {share(low)})"
    return f"{DASH} ({share(low)} to {share(high)})"


def p_value(value: float) -> str:
    """Return a p value as it is usually written."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def all_tables(summary: Summary) -> list[Table]:
    """Return the tables of a report, in order."""
    groups = list(dict.fromkeys((pair.axis, pair.group) for pair in summary.pairs))
    shown = [group for group in groups if group == ALL or group in summary.apart]
    return [
        overview(summary),
        by_category(summary),
        *(differences(summary, group) for group in shown),
    ]


def to_markdown(summary: Summary, figure: str | None = None) -> str:
    """Return all tables as Markdown, below a figure if its file name is given."""
    setup = summary.setup
    model = setup.get("model", {})
    lines = [
        f"# {cell_text(str(setup.get('set', 'evaluation')))}",
        "",
        f"Model {cell_text(str(model.get('name')))} ({model.get('dtype')}, {model.get('device')}), "
        f"seed {setup.get('seed')}, questions put {setup.get('style')}, "
        f"scored by {setup.get('score')}. {cell_text(str(setup.get('note') or ''))}".rstrip(),
        "",
    ]
    for warning in summary.warnings:
        lines += [f"**{cell_text(warning)}**", ""]
    lines += [f"![Accuracy over FLOPs]({figure})", ""] if figure else []
    listed = [changes(summary, MOST_CHANGES)] if summary.changed else []
    for table in [*all_tables(summary), *listed]:
        lines += [f"## {table.title}", "", *_markdown(table), ""]
        if table.note:
            lines += [table.note, ""]
    if summary.errors:
        lines += ["## Errors", ""]
        lines += [f"- {count} × {cell_text(text)}" for text, count in summary.errors]
        lines.append("")
    return "\n".join(lines)


def cell_text(text: str) -> str:
    """Escape text so that it is neither a cell border nor markup in Markdown."""
    one_line = " ".join(text.split())
    for mark in "\\|<>`*_[]":
        one_line = one_line.replace(mark, f"\\{mark}")
    return one_line


def _markdown(table: Table) -> list[str]:
    rows = [
        [cell_text(cell).replace("\\[", "[").replace("\\]", "]") for cell in row]
        for row in (table.header, *table.rows)
    ]
    marks = ["---"] + ["---:"] * (len(table.header) - 1)
    return ["| " + " | ".join(row) + " |" for row in (rows[0], marks, *rows[1:])]


def to_latex(summary: Summary) -> str:
    """Return the tables of accuracy, cost and paired differences as LaTeX (booktabs)."""
    parts = ["% \\usepackage{booktabs}"]
    for table in (overview(summary), differences(summary)):
        if not table.rows:
            continue
        parts += [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{_tex(f'{table.title}. {table.note}')}}}",
            f"\\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
            "\\toprule",
            " & ".join(map(_tex, table.header)) + " \\\\",
            "\\midrule",
            *(" & ".join(map(_tex, row)) + " \\\\" for row in table.rows),
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
        ]
    return "\n".join(parts) + "\n"


#: Characters that LaTeX takes as commands, or that its usual fonts lack.
TEX = {
    "\\": r"\textbackslash{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "[": "{[}",  # after \\ it would be an argument
    "]": "{]}",
    "≥": r"$\geq$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "−": "$-$",
    DASH: "--",
}


def _tex(text: str) -> str:
    signed = re.sub(r"(?<![\w.])-(?=\d)", "−", " ".join(text.split()))
    return "".join(TEX.get(mark, mark) for mark in signed)


def to_csv(summary: Summary) -> str:
    """Return every cell of every group as CSV at full precision."""
    return _csv([field.name for field in fields(CellRow)], summary.cells)


def pairs_csv(summary: Summary) -> str:
    """Return every pair of every group as CSV at full precision."""
    return _csv([field.name for field in fields(PairRow)], summary.pairs)


def changed_csv(summary: Summary) -> str:
    """Return every answer that pruning changed as CSV."""
    return _csv([field.name for field in fields(Change)], summary.changed)


def kept_csv(summary: Summary) -> str:
    """Return the tokens that enter each layer of every cell as CSV: means over the questions."""
    return _csv([field.name for field in fields(KeptRow)], summary.kept)


def _csv(
    names: Sequence[str],
    rows: Sequence[CellRow] | Sequence[PairRow] | Sequence[Change] | Sequence[KeptRow],
) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = [getattr(row, name) for name in names]
        writer.writerow([" to ".join(map(str, v)) if isinstance(v, tuple) else v for v in values])
    return out.getvalue()
