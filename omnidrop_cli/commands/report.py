"""`omnidrop report FILE`: a table and a page about the answers of a batch or an evaluation."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnidrop_cli.options.groups import grouped
from omnidrop_cli.options.report import ChooseFlags, PageOutFlags

if TYPE_CHECKING:
    from omnidrop.evaluation.report.collection import Collection
    from omnidrop_cli.terminal.overview import Listed

NAME = "report"
HELP = """Show the answers of a batch or an evaluation: failed, slowest, least sure, what was kept.

\b
Examples:
  omnidrop report samples/answers.jsonl
  omnidrop report samples/answers.jsonl --where "seconds>0.2" --sort=-seconds
  omnidrop report samples/answers.jsonl --clip "duet*" --least-sure 5
  omnidrop report samples/answers.jsonl --save report.html --pages pages

A FILE is what `omnidrop batch --out` wrote, or the folder or the records.jsonl of `omnidrop eval`.
Rows of different settings are figures of their own. Of several rows for one question in a file the
last counts. Nothing is asked, and no model is loaded.

\b
Names for --where and --sort:
  id clip question answer status cause error category expected method model
  probability   how likely the answer is right, 0 to 1
  asked kept    budget asked for, and share of tokens kept
  seconds       time that the row took
  right         whether the answer is the expected one
Any other name is looked up in the file's own lines, like trace.memory.host.
"""

#: Rows of each list of an overview on a high and on a low terminal; lines of a high one.
SHOWN, FEW, HIGH = 5, 2, 40


@grouped
def command(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Answers of a batch, or an evaluation's folder."),
    ],
    *,
    choose: ChooseFlags,
    out: PageOutFlags,
) -> int:
    """Show the answers of a batch or an evaluation."""
    from omnidrop.errors import UsageError
    from omnidrop.evaluation.report.collection import read
    from omnidrop.evaluation.report.overview import overview
    from omnidrop_cli.terminal.console import is_terminal
    from omnidrop_cli.terminal.progress import Progress

    selection, (order, falling) = choose.selection(), choose.order
    with Progress(is_terminal(sys.stderr) and not out.quiet) as progress:
        found = read(
            files,
            selection,
            order=order,
            watch=lambda done, total: progress("read rows", done // 1000, total // 1000),
        )
        progress.finish()
        if not found.chosen:
            raise UsageError(
                f"No row of {len(found)} is like that: {selection.said()}.",
                hint="Give fewer conditions.",
            )
        told = overview(found)
        ordered = found.ordered(found.chosen, falling) if order else found.chosen
        links: dict[int, Path] = {}
        if out.save is not None or out.pages is not None:
            links = _pages(found, ordered, out, progress)
        if out.save is not None:
            from omnidrop.files import write_whole
            from omnidrop_cli.page.overview import overview_page

            progress("write the page", 0, None)
            text = overview_page(found, told, ordered, selection.said(), out.save, links)
            write_whole(out.save, text, out.force)
        progress.finish()
        lists = _lists(found, ordered, choose)
    if out.json:
        _print_json(told.to_dict(), found, lists)
    elif out.save is None or is_terminal(sys.stdout):
        from omnidrop_cli.terminal.answer import Layout
        from omnidrop_cli.terminal.console import terminal
        from omnidrop_cli.terminal.overview import lines

        chosen = selection.said()
        console = terminal(sys.stdout)
        console.print(Layout(lambda width, ink: lines(found, told, lists, chosen, width, ink)))
    for path in (out.save, out.pages):
        if path is not None and not out.quiet:
            print(f"omnidrop: {path} is written", file=sys.stderr)
    return 0


def _lists(found: Collection, ordered: list[int], choose: ChooseFlags) -> list[Listed]:
    """Return the rows that are listed: those asked for, or a few of each kind."""
    from omnidrop.evaluation.report.overview import group_numbers
    from omnidrop_cli.terminal.overview import Listed

    named = group_numbers(found)

    def listed(heading: str, numbers: list[int], value: str, most: int) -> Listed:
        shown = numbers[: most or None]
        groups = [named[found.group[i]] for i in shown] if len(named) > 1 else []
        rows = [found.row(i) for i in shown]
        return Listed(heading, rows, groups, value, len(numbers) - len(shown))

    made = []
    if choose.slowest is not None:
        slowest = found.slowest(ordered, choose.slowest)
        made.append(listed("Slowest", slowest, "seconds", 0))
    if choose.least_sure is not None:
        unsure = found.least_sure(ordered, choose.least_sure)
        made.append(listed("Least sure", unsure, "probability", 0))
    if choose.sort or ((choose.failed or not choose.selection().everything) and not made):
        heading = f"By {choose.order[0]}" if choose.sort else "Rows"
        value = choose.order[0] if choose.order[0] in ("seconds", "probability") else ""
        made.append(listed(heading, ordered, value, choose.rows))
    if made:
        return made
    high = shutil.get_terminal_size().lines >= HIGH
    few = SHOWN if high else FEW
    slowest, unsure = found.slowest(ordered, few), found.least_sure(ordered, few)
    failed = found.failed(ordered)
    return [
        # On a low terminal their causes, which stand above, have to do.
        *([listed("Failed rows", failed, "", few)] if high else []),
        listed("Slowest", slowest, "seconds", 0),
        listed("Least sure", unsure, "probability", 0),
    ]


def _pages(
    found: Collection, ordered: list[int], out: PageOutFlags, progress: Any
) -> dict[int, Path]:
    """Return the page of each row that has one; those that are missing are made if asked for."""
    from omnidrop_cli.page.of_rows import saved_pages, write_pages

    folders = dict.fromkeys([path.parent for path in found.files])
    links = saved_pages(found, ordered, list(folders))
    if out.pages is not None:
        links |= write_pages(found, ordered, out.pages, force=out.force, progress=progress)
    return links


def _print_json(told: dict[str, Any], found: Collection, lists: list[Listed]) -> None:
    from dataclasses import asdict

    from omnidrop.files import to_json

    told["files"] = [
        {"path": path, **asdict(damage)}
        for path, damage in zip(found.files, found.damage, strict=True)
    ]
    told["lists"] = [
        {"name": part.heading, "rows": [asdict(row) for row in part.rows], "more": part.more}
        for part in lists
    ]
    print(to_json(told, indent=1), flush=True)
