"""`omnidrop batch`: many questions about many clips, into a file; can be stopped and continued."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnidrop.errors import UsageError, printable
from omnidrop_cli.options.batch import AnswersFlags, RunFlags, SourceFlags
from omnidrop_cli.options.common import AnswerFlags, Debug, ModelFlags, NoServe, ReadFlags
from omnidrop_cli.options.groups import grouped, option
from omnidrop_cli.options.limits import FitFlags
from omnidrop_cli.options.pruning import DropFlags
from omnidrop_cli.options.ray import RayFlags

if TYPE_CHECKING:
    from omnidrop.batch.answering import AnswerOptions, Hooks
    from omnidrop.batch.output import AnswersFile
    from omnidrop.batch.records import Record
    from omnidrop.batch.rows import Row
    from omnidrop.batch.run import RunOptions, Tally
    from omnidrop_cli.terminal.progress import Progress

NAME = "batch"
HELP = """Answer many questions about many clips; add one line of JSON each to a file.

\b
Examples:
  omnidrop batch samples/batch.jsonl --out answers.jsonl
  omnidrop batch samples/batch.csv --out b.jsonl --budget 0.2 --copy b.csv
  omnidrop batch "samples/p*.mp4" -q "Is there a piano?" --out p.jsonl
  omnidrop batch "samples/d*.mp4" --out - -q "What plays first?"
  omnidrop batch samples/questions.jsonl --out six.jsonl --limit 6 --retry 1
  omnidrop batch mine.csv --out mine.jsonl --model 3b --timeout 60s

\b
A file of questions is JSONL, CSV, TSV (with a header line) or Parquet.
A row is one question:
  clip or video  path, relative to the file's folder
  question       text
  choices        optional: a list, or A,B,C
  start end      optional: seconds, mm:ss or hh:mm:ss
  id             optional: any text; made from the others if left out

Other columns are carried through to the answers. Files for omnidrop eval are of the same form.
Clips, folders and globs go with -q instead.

A row is done if the output has an answer for the same content of the clip, span, question and
choices, so a call that was stopped or killed continues, and a clip may be renamed. Settings that
differ from those of the answers there are refused. A row that fails is written with its error and
does not stop the others; --retry asks it again. If a clip ends the whole process, its rows are
written as failed and the rest goes on. A question that the model is known not to understand has
failed, unless --anyway is given. The exit code is 6 if any row has failed.
"""


@grouped
def command(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...", help="A file of questions; or clips, folders and globs with -q."
        ),
    ],
    out: Annotated[
        Path,
        option(
            "--out",
            "-o",
            panel="Output",
            metavar="FILE",
            help="Answers are added to this JSONL file, a line each; - is stdout.",
        ),
    ],
    debug: Debug = False,
    no_serve: NoServe = False,
    *,
    source: SourceFlags,
    output: AnswersFlags,
    flow: RunFlags,
    cluster: RayFlags,
    read: ReadFlags,
    drop: DropFlags,
    fit: FitFlags,
    model: ModelFlags,
    flags: AnswerFlags,
) -> int:
    """Answer many questions about many clips."""
    from omnidrop.batch.copies import check_copy
    from omnidrop.batch.run import Tally
    from omnidrop_cli.errors import batch_code, complain
    from omnidrop_cli.files.rows import read_sources
    from omnidrop_cli.interrupts import TERMINATED, telling, terminated, terminating
    from omnidrop_cli.libraries import silence_warnings
    from omnidrop_cli.loading import is_warm
    from omnidrop_cli.terminal.batch import BatchProgress, summary

    fit.check(drop)
    silence_warnings(debug)
    answering = _answer_options(read, drop, fit, model, flags, flow)
    options = replace(_run_options(output, flow, answering), ray=cluster.options())
    _check_output(out, output, flow)
    for path in output.copy or ():
        check_copy(path)
    rows, notices = read_sources(
        sources, source.question or (), flags.choices, recursive=source.recursive
    )
    for notice in () if output.quiet else notices:
        complain(notice, "notice")
    rows = rows[: source.limit]
    tally = Tally()
    shown = BatchProgress(tally, quiet=output.quiet)

    def tell_kept() -> None:
        shown.finish()
        if not output.quiet and tally.asked and not _is_stdout(out):
            complain(
                f"{tally.done} of {tally.total} rows are in {printable(out)}. The same "
                "command goes on with the rest.",
                "interrupted",
            )

    try:
        with terminating() if not is_warm() else telling(lambda: None), telling(tell_kept):
            try:
                _run(rows, out, output, options, model, tally, shown)
            finally:
                shown.finish()
    except KeyboardInterrupt:
        if terminated():
            return TERMINATED
        raise
    if not output.quiet:
        for line in summary(tally):
            print(f"omnidrop: {line}", file=sys.stderr)
    return batch_code(tally.failed + tally.failed_before)


def _run(
    rows: list[Row],
    out: Path,
    output: AnswersFlags,
    options: RunOptions,
    model: ModelFlags,
    tally: Tally,
    shown: Any,
) -> None:
    """Run the batch, then write its copies."""
    from omnidrop.batch.copies import write_copy
    from omnidrop.batch.output import StreamAnswers
    from omnidrop.batch.run import RunHooks, run, run_to
    from omnidrop_cli.libraries import silence_warnings
    from omnidrop_cli.loading import give_way
    from omnidrop_cli.terminal.console import is_terminal
    from omnidrop_cli.terminal.progress import Progress

    def on_record(tally: Tally, row: Row, record: Record) -> None:
        shown.done(tally, row, record)
        give_way()

    with Progress(is_terminal(sys.stderr) and not output.quiet) as progress:
        hooks = RunHooks(
            answer=_hooks(model, progress, shown.stage, quiet=output.quiet),
            on_record=on_record,
            on_asked=shown.begin,
            on_file=partial(_tell_of_earlier_versions, quiet=output.quiet),
            start_worker=partial(silence_warnings, False),
        )
        if _is_stdout(out):
            run_to(rows, StreamAnswers(sys.stdout.buffer), options, hooks, tally=tally)
            return
        run(rows, out, options, hooks, tally=tally)
    written = options.shard.output(out) if options.shard is not None else out
    for path in output.copy or ():
        write_copy(written, path)


def _hooks(model: ModelFlags, progress: Progress, stage: Any, *, quiet: bool) -> Hooks:
    from omnidrop.batch.answering import Hooks
    from omnidrop_cli.interrupts import stop_if_interrupted
    from omnidrop_cli.libraries import downloads
    from omnidrop_cli.loading import load_model

    return Hooks(
        progress=stage,
        on_load=lambda options: load_model(model, progress, quiet=quiet),
        on_download=downloads(progress, quiet=quiet),
        on_problem=stop_if_interrupted,
    )


def _answer_options(
    read: ReadFlags,
    drop: DropFlags,
    fit: FitFlags,
    model: ModelFlags,
    flags: AnswerFlags,
    flow: RunFlags,
) -> AnswerOptions:
    from omnidrop.batch.answering import AnswerOptions

    return AnswerOptions(
        load=model.load_options(),
        method=drop.choice(),
        clip=read.clip_options(),
        generate=flags.generate(),
        system=flags.system,
        anyway=flags.anyway,
        limits=fit.limits(),
        fit_pixels=fit.fit_pixels,
        fit_fps=fit.fit_fps,
        timeout=flow.timeout,
    )


def _run_options(output: AnswersFlags, flow: RunFlags, answer: AnswerOptions) -> RunOptions:
    from omnidrop.batch.output import Shard
    from omnidrop.batch.records import USUAL, check_fields
    from omnidrop.batch.run import RunOptions

    return RunOptions(
        answer=answer,
        fields=USUAL if output.fields is None else check_fields(output.fields),
        retry=flow.retry,
        fail_fast=flow.fail_fast,
        shard=None if flow.shard is None else Shard(*flow.shard),
        workers=_workers(flow, answer.load.device),
    )


def _workers(flow: RunFlags, device: str) -> int:
    """Return how many processes answer; 0 for this one.

    A limit of time takes a process, which can be ended; a warm model is in the process at hand.
    """
    from omnidrop.batch.workers import gpus
    from omnidrop_cli.loading import is_warm

    if is_warm():
        return 0
    count = flow.workers or (gpus() if device in ("auto", "cuda") else 1)
    return count if count > 1 or flow.timeout is not None else 0


def _check_output(out: Path, output: AnswersFlags, flow: RunFlags) -> None:
    if out.suffix.lower() in (".csv", ".tsv", ".parquet", ".pq"):
        raise UsageError(
            "The answers are added row by row to a JSONL file.",
            path=out,
            hint=f"Write a table at the end: --out {printable(out.with_suffix('.jsonl'))} "
            f"--copy {printable(out)}",
        )
    if _is_stdout(out) and (output.copy or flow.shard):
        raise UsageError(
            "--copy and --shard need a file of answers.", hint="Give --out a file instead of -."
        )


def _is_stdout(path: Path) -> bool:
    return str(path) == "-"


def _tell_of_earlier_versions(answers: AnswersFile, *, quiet: bool) -> None:
    from omnidrop_cli.errors import complain

    if answers.earlier_versions and not quiet:
        complain(
            f"{answers.earlier_versions} answers in {printable(answers.path)} are of an earlier "
            "version; they are known by their ids alone, whatever their settings were.",
            "notice",
        )
