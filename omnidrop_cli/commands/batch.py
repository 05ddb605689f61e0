"""`omnidrop batch MANIFEST`: many questions from a file; can be stopped and taken up again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from omnidrop.errors import BatchError
from omnidrop_cli.options.common import AnswerFlags, DropFlags, ModelFlags, ReadFlags
from omnidrop_cli.options.groups import grouped, option
from omnidrop_cli.options.limits import FitFlags

NAME = "batch"
HELP = """Answer the questions of a manifest; write one line of JSON each.

\b
Examples:
  omnidrop batch questions.jsonl --out answers.jsonl
  omnidrop batch questions.csv --out answers.jsonl --model 3b --4bit
  omnidrop batch questions.jsonl --out answers.jsonl --retry

\b
A manifest is JSONL or CSV (.csv, with a header line); one question a row:
  clip       path, relative to the manifest's folder
  question   text
  choices    optional: a list, or A,B,C
  start end  optional: seconds, mm:ss or hh:mm:ss
  id         optional: any text; made from the other columns if left out

Rows whose id is already in the output are skipped, so a call that was stopped goes on where it was.
A row that fails is written with its error and does not stop the others; --retry asks it again. The
exit code is 6 if any row of the manifest has failed.
"""


@grouped
def command(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="A .jsonl or .csv file.")],
    out: Annotated[
        Path,
        option(
            "--out",
            "-o",
            panel="Output",
            metavar="FILE",
            help="Answers are added to this JSONL file.",
        ),
    ],
    retry: Annotated[
        bool, option("--retry", panel="Output", help="Ask rows that failed before again.")
    ] = False,
    quiet: Annotated[
        bool, option("--quiet", panel="Output", help="No progress and no summary.")
    ] = False,
    debug: Annotated[
        bool, option("--debug", panel="Output", help="Show tracebacks and library warnings.")
    ] = False,
    *,
    read: ReadFlags,
    drop: DropFlags,
    fit: FitFlags,
    model: ModelFlags,
    flags: AnswerFlags,
) -> int:
    """Answer the questions of a manifest."""
    from omnidrop_cli import backend
    from omnidrop_cli import errors as guard
    from omnidrop_cli.commands.answering import Job, answers
    from omnidrop_cli.files.manifest import done_before, open_output, read_manifest
    from omnidrop_cli.terminal.progress import Progress

    fit.check(drop)
    backend.hush(debug)
    items = read_manifest(manifest, flags.choices)
    earlier = done_before(out)
    old_failures = 0
    left: list[Any] = []
    for item in items:
        if item.id not in earlier or (retry and not earlier[item.id]):
            left.append(item)
        elif not earlier[item.id]:
            old_failures += 1
    progress = Progress(guard.is_terminal(sys.stderr) and not quiet)
    if not progress.shown:
        backend.hide_downloads()
    failed = 0
    with progress, open_output(out) as write:
        if left:
            method = backend.method(drop)
            progress("load the model", 0, None)
            loaded = backend.load(model)
            progress.finish()
            job = Job(loaded, method, read, flags, progress, fit=fit)
            for number, outcome in enumerate(answers(left, job), 1):
                failed += outcome.answer is None
                write(outcome)
                if outcome.problem is not None:
                    guard.complain(f"{outcome.item.id}: {guard.describe(outcome.problem)[0]}")
                elif not quiet:
                    print(f"{number}/{len(left)} {outcome.item.id}", file=sys.stderr, flush=True)
    if not quiet:
        said = f"{len(left) - failed} answered, {failed} failed"
        if len(items) > len(left):
            said += f", {len(items) - len(left)} done before"
        print(f"omnidrop: {said}", file=sys.stderr)
    return BatchError.exit_code if failed or old_failures else 0
