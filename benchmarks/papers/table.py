r"""Runs a table of a paper with `omnidrop eval`; sets what was measured beside what is printed.

    python benchmarks/papers/table.py seats --show
    python benchmarks/papers/table.py seats --out results/seats \
        worldsense=/data/WorldSense daily-omni=/data/Daily-Omni
    python benchmarks/papers/table.py apack --out results/apack --limit 200 \
        avut=/data/AVUT -- --4bit

Each SET=FOLDER is a local copy in the publisher's layout (docs/evaluate.md says what each holds);
sets may come in several calls. All rows of a set are one call of `omnidrop eval` in OUT/SET, so
that every clip is encoded once, and a call that was stopped goes on where it was. What follows `--`
goes to `omnidrop eval` and wins over the paper's settings, which the table then says. The table is
printed as Markdown and written to OUT/table.md and OUT/table.json.

Exit code: that of `omnidrop eval`, so 6 if a question ended in an error; 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.papers.measured import Measured, document, markdown, measure  # noqa: E402
from benchmarks.papers.published import TABLES  # noqa: E402
from benchmarks.papers.rows import Column, Row, Table  # noqa: E402
from omnidrop.errors import OmniDropError  # noqa: E402

#: Exit code of `omnidrop eval` where single questions failed; the rest of the table is made.
SOME_FAILED = 6


@dataclass(frozen=True)
class Call:
    """What was typed.

    Attributes
    ----------
    table : Table
    out : Path or None
    folders : mapping of str to Path
        Set → its local copy.
    model : str
    rows : tuple of str or None
        Keys of the rows to run; None for all.
    limit : int or None
    predictor : str or None
    extra : tuple of str
        Further options of `omnidrop eval`.
    """

    table: Table
    out: Path | None
    folders: dict[str, Path]
    model: str
    rows: tuple[str, ...] | None = None
    limit: int | None = None
    predictor: str | None = None
    extra: tuple[str, ...] = ()

    def chosen(self) -> tuple[Row, ...]:
        """Return the rows to run besides the unpruned control."""
        return tuple(
            row
            for row in self.table.rows
            if row.runs and not row.full and (self.rows is None or row.key in self.rows)
        )


def variant(row: Row, predictor: str | None = None) -> str:
    """Return a row as `omnidrop eval --variant` takes it: its settings that are not defaults."""
    method = row.made(predictor)
    own = {f.name: getattr(method, f.name) for f in fields(method)}  # type: ignore[arg-type]
    usual = {f.name: f.default for f in fields(method)}  # type: ignore[arg-type]
    given = {k: v for k, v in own.items() if k == "budget" or v != usual[k]}
    words = [f"{name}={json.dumps(value)}" for name, value in given.items()]
    return f"{row.key}={method.name}:{','.join(words)}"


def eval_words(call: Call, column: Column, folder: str, out: str) -> list[str]:
    """Return the arguments of `omnidrop eval` for one set."""
    words = ["eval", f"{column.set}:{folder}", "--out", out, "--model", call.model]
    words += column.asked.words()
    words += ["--method", "none"]  # the control, which always runs; then the rows
    for row in call.chosen():
        words += ["--variant", variant(row, call.predictor)]
    if call.limit is not None:
        words += ["--limit", str(call.limit)]
    return [*words, *call.extra]


def run(call: Call, out: Path) -> int:
    """Ask the questions of every set that was named; return the worst exit code."""
    from omnidrop_cli.main import run as omnidrop

    worst = 0
    for column in call.table.columns:
        if column.set not in call.folders:
            continue
        words = eval_words(call, column, str(call.folders[column.set]), str(out / column.set))
        print(f"omnidrop {shlex.join(words)}", file=sys.stderr)
        with contextlib.redirect_stdout(sys.stderr):
            code = omnidrop(words)
        if code not in (0, SOME_FAILED):
            return code
        worst = max(worst, code)
    return worst


def lacks_predictor(call: Call) -> str:
    """Return what is wrong with ContextGuard's predictor; empty if nothing is.

    Without this, a run of hours would end in an error for every question of that row.
    """
    if call.predictor is not None:
        return "" if Path(call.predictor).is_dir() else f"--predictor {call.predictor}: no folder"
    if Path(call.model).is_dir() or not any(
        "predictor" in row.made().settings() for row in call.chosen()
    ):
        return ""
    return (
        f"--predictor is missing: train one with `omnidrop train-a2v CLIPS --model {call.model} "
        "--out DIR`"
    )


def parsed(words: Sequence[str]) -> tuple[Call, bool]:
    """Return what was typed, and whether only the published table is wanted."""
    typed, extra = list(words), []
    if "--" in typed:
        place = typed.index("--")
        typed, extra = typed[:place], typed[place + 1 :]
    parser = argparse.ArgumentParser(
        prog="table.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", choices=TABLES, help="which table")
    parser.add_argument("sets", nargs="*", metavar="SET=FOLDER", help="local copies of its sets")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of records and tables")
    parser.add_argument("--model", metavar="NAME", help="another checkpoint than the paper's")
    parser.add_argument("--rows", metavar="A,B", help="only these rows")
    parser.add_argument("--limit", type=int, metavar="N", help="first N questions of each set")
    parser.add_argument("--predictor", metavar="DIR", help="ContextGuard's trained predictor")
    parser.add_argument("--show", action="store_true", help="run nothing: settings and figures")
    found = parser.parse_intermixed_args(typed)
    table = TABLES[found.table]
    folders = {}
    for word in found.sets:
        name, equals, folder = word.partition("=")
        if name not in {column.set for column in table.columns} or not equals or not folder:
            known = ", ".join(column.set for column in table.columns)
            parser.error(f"{word!r} is not SET=FOLDER with a set of this table: {known}")
        folders[name] = Path(folder)
    rows = None if found.rows is None else tuple(found.rows.split(","))
    can_run = {row.key for row in table.rows if row.runs}
    if rows is not None and not set(rows) <= can_run:
        parser.error(f"--rows {found.rows}: this table runs {', '.join(sorted(can_run))}")
    if found.out is None and not found.show:
        parser.error("--out is missing: say where results go (or --show)")
    call = Call(
        table,
        found.out,
        folders,
        found.model or table.model,
        rows,
        found.limit,
        found.predictor,
        tuple(extra),
    )
    if not found.show and folders and (problem := lacks_predictor(call)):
        parser.error(problem)
    return call, found.show


def shown(call: Call) -> str:
    """Return the published table, and the call of `omnidrop eval` behind each set."""
    lines = [markdown(Measured(call.table, {})), "## Commands", ""]
    for column in call.table.columns:
        folder = str(call.folders.get(column.set, "FOLDER"))
        out = str((call.out or Path("OUT")) / column.set)
        words = shlex.join(eval_words(call, column, folder, out))
        lines += ["```sh", f"omnidrop {words}", "```", ""]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Run the table that is named, and print it."""
    call, show = parsed(sys.argv[1:] if words is None else words)
    if show or call.out is None:
        print(shown(call))
        return 0
    code = run(call, call.out)
    if code not in (0, SOME_FAILED):
        return code
    try:
        found = measure(call.table, call.out)
    except OmniDropError as problem:
        print(f"table.py: {problem}", file=sys.stderr)
        return 2
    if not found.sets:
        named = " ".join(f"{column.set}=FOLDER" for column in call.table.columns)
        print(f"table.py: {call.out} holds no results; name a set: {named}", file=sys.stderr)
        return 2
    text = markdown(found)
    (call.out / "table.md").write_text(text, encoding="utf-8")
    made: dict[str, Any] = document(found)
    (call.out / "table.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
