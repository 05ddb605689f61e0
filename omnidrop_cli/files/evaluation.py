"""Results of `omnidrop eval`: progress, tables on stdout, files of tables and figures."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnidrop.errors import OutsideError, UsageError, printable
from omnidrop.files import to_json
from omnidrop_cli.errors import by_option, complain
from omnidrop_cli.terminal.console import AsciiStream, is_terminal
from omnidrop_cli.terminal.progress import Progress

if TYPE_CHECKING:
    from omnidrop.evaluation.runner import Tally
    from omnidrop.evaluation.summary import Summary
    from omnidrop.evaluation.tables import Table

FIGURE = "accuracy"
#: Columns of a screen that has room for every column of a table.
ROOMY = 120
#: More pairs than this are shown without those against the unpruned model.
LONG = 40
FILES = (
    "summary.json",
    "summary.md",
    "summary.tex",
    "summary.csv",
    "pairs.csv",
    "changed.csv",
    "kept.csv",
    "accuracy.png",
    "accuracy.svg",
)
#: Columns of words; the others are numbers, but for the first.
WORDS = ("id", "question", "unpruned", "pruned")
#: Changed answers that a screen shows.
CHANGES = 8
#: Seconds between lines of progress where there is no terminal.
EVERY = 30.0
#: Questions outside of what the model knows that are named one by one; the others are counted.
OUTSIDE_NAMED = 3


class Watch:
    """Shows the progress of a run: a bar on a terminal, a line every 30 seconds elsewhere."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        terminal = is_terminal(sys.stderr)
        self.total, self.quiet = total, quiet
        self.bar = Progress(terminal and not quiet)
        self._lines = not terminal and not quiet
        self._written = time.monotonic()
        self._done = 0
        self._reported: set[str] = set()
        self._outside: set[str] = set()

    def __call__(self, tally: Tally, record: dict[str, Any] | None) -> None:
        if record is not None and record["status"] == "error":
            self._complain(record)
        self._done = tally.total
        self.bar(self._words(tally), tally.total, self.total)
        if self._lines and time.monotonic() - self._written >= EVERY:
            self._written = time.monotonic()
            print(f"omnidrop: {tally.total} of {self.total}{_errors(tally)}", file=sys.stderr)

    def close(self, tally: Tally) -> None:
        """Remove the bar and write the counts."""
        self.bar.finish()
        if self._outside:
            many = (
                f"{len(self._outside)} questions are" if len(self._outside) > 1 else "1 question is"
            )
            complain(
                f"{many} outside of what the model knows and counted as errors. Take a model that "
                "may know (--model 3b), or ask this one anyway (--anyway).",
                "notice",
            )
        if self.quiet:
            return
        parts = [f"{tally.answered} answered"]
        parts += [f"{tally.refused} refused (budget out of reach)"] if tally.refused else []
        parts += [f"{tally.failed} failed"] if tally.failed else []
        parts += [f"{tally.before} done before"] if tally.before else []
        print(f"omnidrop: {', '.join(parts)}", file=sys.stderr, flush=True)

    def tell_kept(self, folder: Path) -> None:
        """Say after Ctrl-C what is in the folder, and how to go on."""
        if self._done and not self.quiet:
            complain(
                f"{self._done} of {self.total} answers are in {printable(folder)}. The same "
                "command goes on with the rest; omnidrop eval --summary shows them so far.",
                "interrupted",
            )

    def _words(self, tally: Tally) -> str:
        return f"questions{_errors(tally)}"

    def _complain(self, record: dict[str, Any]) -> None:
        """Report each kind of error once; the records have them all."""
        if record["error"] == OutsideError.__name__:
            self._outside.add(record["id"])
            if len(self._outside) > OUTSIDE_NAMED:
                return
        if record["message"] not in self._reported:
            self._reported.add(record["message"])
            self.bar.finish()
            complain(f"{record['label']}, {record['id']}: {by_option(record['message'])}")


def _errors(tally: Tally) -> str:
    return f", {tally.failed} errors" if tally.failed else ""


def check_folder(folder: Path) -> None:
    """Refuse a folder where results would replace a file that is not of an evaluation.

    Raises
    ------
    UsageError
        If it holds a file with the name of a result, and no evaluation.
    """
    if _is_evaluation(folder):
        return
    for name in (*FILES, "records.jsonl"):
        if (folder / name).exists():
            raise UsageError(
                f"{name} is there, and is not from an evaluation.",
                path=folder,
                hint="Give --out another folder.",
            )


def _is_evaluation(folder: Path) -> bool:
    """Return whether a folder holds an evaluation, or a summary of several."""
    import json

    if (folder / "setup.json").exists():  # read, and refused if it is another's, with its records
        return True
    try:
        found = json.loads((folder / "summary.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("schema") == "omnidrop.eval-summary/1"


def write_files(summary: Summary, folder: Path) -> tuple[Path, ...]:
    """Write every table and figure of a summary into a folder; return their names."""
    from omnidrop.evaluation import figures, tables

    texts = {
        "summary.json": to_json(summary.to_dict(), indent=1) + "\n",
        "summary.md": tables.to_markdown(summary, f"{FIGURE}.svg"),
        "summary.tex": tables.to_latex(summary),
        "summary.csv": tables.to_csv(summary),
        "pairs.csv": tables.pairs_csv(summary),
        "changed.csv": tables.changed_csv(summary),
        "kept.csv": tables.kept_csv(summary),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        drawn = figures.save(summary, folder / FIGURE, title=title(summary))
    except OSError as problem:
        raise UsageError(
            f"Results cannot be written ({problem.strerror}).", path=folder
        ) from problem
    return (*(folder / name for name in texts), *drawn)


def title(summary: Summary) -> str:
    """Return what was run, in a few words."""
    model = summary.setup.get("model", {})
    return f"{summary.setup.get('set')}, model {model.get('name')}"


def show(summary: Summary, *, as_json: bool) -> None:
    """Write the summary to stdout: rich tables, or one JSON document."""
    from omnidrop.evaluation import tables

    if as_json:
        print(to_json(summary.to_dict(), indent=1), flush=True)
        return
    console = _stdout()
    pairs = tables.differences(summary)
    if len(pairs.rows) > LONG:
        pairs = tables.differences(summary, unpruned=False)
    for warning in summary.warnings:
        console.print(f"! {warning}", style="bold red")
        console.print()
    shown = [tables.overview(summary, compact=console.width < ROOMY), pairs]
    shown.append(tables.changes(summary, CHANGES))
    for table in shown:
        if table.rows:
            console.print(_rich(table))
            console.print(table.note, style="dim")
            console.print()


def _rich(table: Table) -> Any:
    from rich import box
    from rich.table import Table as RichTable

    shown = RichTable(
        title=table.title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for number, name in enumerate(table.header):
        whole = number == 0 or name in ("points", "b : c")
        left = number == 0 or name in WORDS
        shown.add_column(name, justify="left" if left else "right", no_wrap=whole)
    for row in table.rows:
        shown.add_row(*row)
    return shown


def _stdout() -> Any:
    """Return a console on stdout, as wide as its terminal or as the tables need."""
    import os

    from rich.console import Console

    stream: Any = sys.stdout
    if "utf" not in (getattr(stream, "encoding", None) or "utf").lower():
        stream = AsciiStream(stream)
    return Console(
        file=stream,
        width=None if is_terminal(sys.stdout) else 160,
        no_color=True if os.environ.get("NO_COLOR") else None,
        highlight=False,
        markup=False,
        emoji=False,
    )
