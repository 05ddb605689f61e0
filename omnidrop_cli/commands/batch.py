"""`omnidrop batch MANIFEST`: many questions from a file; can be stopped and continued."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from omnidrop.errors import printable
from omnidrop_cli.options.common import AnswerFlags, Debug, ModelFlags, NoServe, ReadFlags
from omnidrop_cli.options.groups import grouped, option
from omnidrop_cli.options.limits import FitFlags
from omnidrop_cli.options.pruning import DropFlags

NAME = "batch"
HELP = """Answer the questions of a manifest; write one line of JSON each.

\b
Examples:
  omnidrop batch samples/batch.jsonl --out answers.jsonl
  omnidrop batch samples/batch.csv --out more.jsonl --budget 0.2
  omnidrop batch samples/batch.jsonl --out answers.jsonl --retry
  omnidrop batch my-questions.csv --out mine.jsonl --model 3b --4bit

\b
A manifest is JSONL or CSV (.csv, with a header line); one question a row:
  clip       path, relative to the manifest's folder
  question   text
  choices    optional: a list, or A,B,C
  start end  optional: seconds, mm:ss or hh:mm:ss
  id         optional: any text; made from the other columns if left out

Rows whose id is in the output already are skipped, so a call that was stopped continues. A row that
fails is written with its error and does not stop the others; --retry asks it again. If a clip ends
the whole process, the next call writes that clip's rows as failed and goes on. A question that the
model is known not to understand has failed, unless --anyway is given. The exit code is 6 if any row
of the manifest has failed.
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
        bool, option("--retry", panel="Output", help="Ask the rows again that failed before.")
    ] = False,
    quiet: Annotated[
        bool, option("--quiet", panel="Output", help="No progress and no summary.")
    ] = False,
    debug: Debug = False,
    no_serve: NoServe = False,
    *,
    read: ReadFlags,
    drop: DropFlags,
    fit: FitFlags,
    model: ModelFlags,
    flags: AnswerFlags,
) -> int:
    """Answer the questions of a manifest."""
    from omnidrop.begun import Begun
    from omnidrop.report.trace import EMPTY
    from omnidrop_cli.commands.answering import Job, Question, answers
    from omnidrop_cli.errors import batch_code, complain, describe
    from omnidrop_cli.files.manifest import done_before, open_output, read_manifest
    from omnidrop_cli.interrupts import telling
    from omnidrop_cli.libraries import silence_warnings
    from omnidrop_cli.loading import give_way, load_model
    from omnidrop_cli.terminal.console import is_terminal
    from omnidrop_cli.terminal.progress import Progress

    fit.check(drop)
    silence_warnings(debug)
    questions = read_manifest(manifest, flags.choices)
    earlier = done_before(out)
    old_failures = 0
    left: list[Question] = []
    for question in questions:
        if question.id not in earlier or (retry and not earlier[question.id]):
            left.append(question)
        elif not earlier[question.id]:
            old_failures += 1
    progress = Progress(is_terminal(sys.stderr) and not quiet)
    failed = number = 0

    def tell_kept() -> None:
        if not quiet and number:
            complain(
                f"{number} of {len(left)} rows are in {printable(out)}. The same command goes on "
                "with the rest.",
                "interrupted",
            )

    notes = Begun(out.parent, f".{out.name}.begun")
    with telling(tell_kept), progress, open_output(out) as write, notes as begun:
        if left:
            drop.early()
            loaded = load_model(model, progress, quiet=quiet)
            method = drop.for_model(loaded.recommended)
            job = Job(loaded, method, read, flags, progress, fit=fit, begun=begun)
            for outcome in answers(left, job):
                failed += outcome.answer is None
                write(outcome)
                number += 1
                give_way()
                name = outcome.question.id
                if outcome.problem is not None:
                    complain(f"{name}: {describe(outcome.problem)[0]}")
                elif not quiet:
                    print(f"{number}/{len(left)} {name}", file=sys.stderr, flush=True)
                    if outcome.answer is not None and not outcome.answer.text.strip():
                        complain(f"{name}: {EMPTY}", "notice")
    if not quiet:
        counts = f"{len(left) - failed} answered, {failed} failed"
        if len(questions) > len(left):
            counts += f", {len(questions) - len(left)} done before"
        print(f"omnidrop: {counts}", file=sys.stderr)
    return batch_code(failed + old_failures)
