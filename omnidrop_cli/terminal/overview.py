"""The report on many answers as lines of text: figures by settings, causes, and lists of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.text import Text

from omnidrop import format as fmt
from omnidrop.errors import printable
from omnidrop.evaluation.report.rows import ANSWERED
from omnidrop_cli.terminal.glyphs import LEVELS, VIDEO, Ink
from omnidrop_cli.terminal.sections import hanging, note, title

if TYPE_CHECKING:
    from omnidrop.evaluation.report.collection import Collection
    from omnidrop.evaluation.report.overview import GroupFigures, Overview
    from omnidrop.evaluation.report.rows import Row

INDENT = "  "
#: Cells of a screen on which the columns that say less are left out.
NARROW = 100
#: Causes and groups that are listed; the rest is counted.
MOST_CAUSES, MOST_GROUPS = 8, 30


@dataclass(frozen=True)
class Listed:
    """Rows under a heading.

    Attributes
    ----------
    heading : str
    rows : sequence of Row
    groups : sequence of int
        Number of each row's settings; empty if all are the same.
    value : {"seconds", "probability", "error", ""}
        What stands before each.
    more : int
        Rows of the same kind that are not listed.
    """

    heading: str
    rows: Sequence[Row]
    groups: Sequence[int] = ()
    value: str = ""
    more: int = 0


def lines(
    found: Collection, told: Overview, lists: Sequence[Listed], chosen: str, width: int, ink: Ink
) -> Iterator[Text]:
    """Yield the report.

    Parameters
    ----------
    found : Collection
    told : Overview
    lists : sequence of Listed
    chosen : str
        The selection in words; empty if every row is shown.
    width : int
    ink : Ink
    """
    yield from _heading(found, told, chosen, width)
    yield from _groups(told.groups, width)
    yield from _along(told.groups, width, ink)
    yield from _causes(told, width)
    for listed in lists:
        if listed.rows:
            yield from rows(listed, width)


def rows(listed: Listed, width: int) -> Iterator[Text]:
    """Yield rows as a table under their heading."""
    yield Text()
    yield title(listed.heading, width)
    table = [[_value(row, listed.value), *_words(row)] for row in listed.rows]
    if not any(line[0] for line in table):
        table = [line[1:] for line in table]
    if listed.groups:
        widest = max(len(str(group)) for group in listed.groups)
        table = [
            [str(g).rjust(widest), *line] for g, line in zip(listed.groups, table, strict=True)
        ]
    styles = ["dim", "dim", "", "", "bold"][-len(table[0]) :]
    shares = (0.22, 0.4) if width >= NARROW else (0.24, 0.36)
    yield from grid(table, width, styles, shares)
    if listed.more:
        yield from note(f"and {fmt.number(listed.more)} more", width)


def grid(
    table: Sequence[Sequence[str]], width: int, styles: Sequence[str], shares: tuple[float, float]
) -> Iterator[Text]:
    """Yield rows whose last three columns share the width; the columns before are as they are.

    Parameters
    ----------
    table : sequence of sequence of str
    width : int
    styles : sequence of str
        Of the columns.
    shares : (float, float)
        What the third and the second column from the end may take of the width.
    """
    if not table:
        return
    count = len(table[0])
    widths = [max(cell_len(row[i]) for row in table) for i in range(count)]
    for place, share in zip((count - 3, count - 2), shares, strict=True):
        widths[place] = min(widths[place], max(int(share * width), 8))
    widths[-1] = min(widths[-1], max(width - len(INDENT) - sum(widths[:-1]) - 2 * (count - 1), 8))
    for row in table:
        line = Text(INDENT)
        for i, (cell, wide, style) in enumerate(zip(row, widths, styles, strict=True)):
            part = Text(cell, style=style)
            part.truncate(wide, overflow="ellipsis", pad=i + 1 < count)
            line.append_text(part)
            line.append("  " if i + 1 < count else "")
        line.rstrip()
        yield line


def _heading(found: Collection, told: Overview, chosen: str, width: int) -> Iterator[Text]:
    names = [printable(path) for path in found.files[:3]]
    names += [f"and {len(found.files) - 3} more"] if len(found.files) > 3 else []
    yield from hanging("", Text(", ".join(names), style="bold"), width)
    parts = [f"{fmt.number(told.rows)} row{'s' * (told.rows != 1)}"]
    parts[0] += f" about {fmt.number(told.clips)} clip{'s' * (told.clips != 1)}"
    parts += [f"{fmt.number(told.answered)} answered"] if told.answered != told.rows else []
    parts += [f"{fmt.number(told.failed)} failed"] if told.failed else []
    parts += [f"{fmt.number(told.refused)} refused"] if told.refused else []
    yield from hanging("", Text(" · ".join(parts)), width)
    if chosen:
        left = f"; {fmt.number(told.left_out)} rows left out"
        yield from hanging("", Text(f"Only: {printable(chosen)}{left}", style="dim"), width)
    for text in damage(found):
        yield from hanging("! ", Text(text, style="bold"), width, "bold")


def damage(found: Collection) -> list[str]:
    """Return what of the files is no row, in words."""
    told = []
    for path, part in zip(found.files, found.damage, strict=True):
        name = printable(path.name)
        if part.lines:
            many = f"{part.lines} lines are" if part.lines > 1 else "1 line is"
            told.append(f"{name}: {many} no answer (first: line {part.first}).")
        if part.cut:
            told.append(f"{name}: the last line is not complete; its writer is at work or stopped.")
        if part.replaced:
            times = "rows were" if part.replaced > 1 else "row was"
            told.append(
                f"{name}: {fmt.number(part.replaced)} {times} asked again; the last counts."
            )
    return told


def _groups(groups: Sequence[GroupFigures], width: int) -> Iterator[Text]:
    yield Text()
    yield title("By settings", width)
    judged = any(group.judged for group in groups)
    wide = width >= NARROW
    head = ["", "rows", "failed"] + (["right"] if judged else []) + ["kept"]
    head += ["from", "to"] if wide else []
    head += ["sure", "time", "slowest"]
    table = [head]
    shown = groups[:MOST_GROUPS]
    for group in shown:
        row = [
            _named(group, groups),
            fmt.number(group.rows),
            fmt.number(group.failed + group.refused),
        ]
        if judged:
            row.append(fmt.share(group.right / group.judged) if group.judged else "–")
        kept, sure, time = group.kept, group.probability, group.seconds
        row.append(fmt.share(kept.mean) if kept else "–")
        if wide:
            row += [fmt.share(kept.least), fmt.share(kept.most)] if kept else ["–", "–"]
        row.append(fmt.share(sure.median, 0) if sure else "–")
        row += [fmt.duration(time.median), fmt.duration(time.most)] if time else ["–", "–"]
        table.append(row)
    widths = [max(cell_len(row[i]) for row in table) for i in range(len(head))]
    widths[0] = min(widths[0], max(width - len(INDENT) - sum(w + 2 for w in widths[1:]), 12))
    for number, row in enumerate(table):
        first = Text(row[0], style="bold")
        first.truncate(widths[0], overflow="ellipsis", pad=True)
        line = Text(INDENT).append_text(first)
        for cell, wide_by in zip(row[1:], widths[1:], strict=True):
            line.append("  " + cell.rjust(wide_by), "dim" if not number else "")
        yield line
        if number and shown[number - 1].other:
            other = shown[number - 1].other
            text = ", ".join(f"{k} {fmt.setting(v)}" for k, v in other.items())
            yield from hanging(INDENT * 2, Text(printable(text), style="dim"), width)
    if len(groups) > len(shown):
        yield from note(f"and {len(groups) - len(shown)} more settings", width)
    words = "kept: share of tokens, mean" + (", least, most" if wide else "")
    yield from note(f"{words} · sure: median probability · time: median", width)


def _along(groups: Sequence[GroupFigures], width: int, ink: Ink) -> Iterator[Text]:
    shown = [group for group in groups if group.along][:MOST_GROUPS]
    if not shown:
        return
    yield Text()
    yield title("Kept along the clips, from their start to their end", width)
    top = max(share for group in shown for share in group.along if share is not None) or 1.0
    cell = 2 if width < NARROW else 4
    names = [_named(group, groups) for group in shown]
    longest = min(max(map(cell_len, names)), max(width - 12 * cell - 24, 12))
    for group, text in zip(shown, names, strict=True):
        name = Text(text)
        name.truncate(longest, overflow="ellipsis", pad=True)
        known = [share for share in group.along if share is not None]
        line = Text(INDENT).append_text(name).append("  ")
        for share in group.along:
            level = " " if share is None else LEVELS[min(int(share / top * 8), 7)]
            line.append(level * cell, ink.style(VIDEO))
        line.append(f"  {fmt.share(min(known), 0)} to {fmt.share(max(known), 0)}", "dim")
        yield line


def _causes(told: Overview, width: int) -> Iterator[Text]:
    if not told.causes:
        return
    yield Text()
    yield title("Failed and refused" if told.refused else "Failed", width)
    shown = told.causes[:MOST_CAUSES]
    widest = max(len(fmt.number(cause.count)) for cause in shown)
    for cause in shown:
        head = f"{INDENT}{fmt.number(cause.count).rjust(widest)}  "
        clips = f" ({fmt.number(cause.clips)} clips)" if cause.clips > 1 else ""
        yield from hanging(head, Text(printable(cause.text + clips)), width)
    if len(told.causes) > len(shown):
        yield from note(f"and {len(told.causes) - len(shown)} more causes", width)
    if told.failed < told.rows:
        yield from note("--failed lists the rows", width)


def _named(group: GroupFigures, groups: Sequence[GroupFigures]) -> str:
    return f"{group.number}  {group.name}" if len(groups) > 1 else group.name


def _value(row: Row, name: str) -> str:
    if name == "seconds" and row.seconds is not None:
        return fmt.duration(row.seconds).rjust(8)
    if name == "probability" and row.probability is not None:
        return fmt.percent(row.probability).rjust(9)
    return ""


def _words(row: Row) -> list[str]:
    clip = row.clip.replace("\\", "/").rpartition("/")[2]
    text = row.answer if row.status == ANSWERED else row.error.removeprefix(f"{row.clip}: ")
    if row.right is False and row.expected:
        text = f"{text} (expected {row.expected})"
    return [_line(clip), _line(row.question), _line(text) or "(nothing)"]


def _line(text: Any) -> str:
    return printable(" ".join(str(text).split()))


__all__ = ["Listed", "damage", "grid", "lines", "rows"]
