"""`omnidrop eval SET`: methods against each other on the same questions; can be taken up again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnidrop.errors import BatchError, UsageError
from omnidrop_cli.options.common import ModelFlags, ReadFlags
from omnidrop_cli.options.eval import EntrantFlags, ResultFlags, SetFlags
from omnidrop_cli.options.groups import grouped

if TYPE_CHECKING:
    from omnidrop.evaluation.summary import Summary

NAME = "eval"
HELP = """Compare methods on a question set: accuracy, cost, and paired differences.

\b
Examples:
  omnidrop eval questions.jsonl --out results
  omnidrop eval avsynth --videos clips --method omnidrop,fastv -b .3 --out r
  omnidrop eval worldsense:/data/WorldSense --model 7b --limit 200 --out r
  omnidrop eval q.jsonl --out r --set omnidrop.diversity=0
  omnidrop eval q.jsonl --out r --variant "even=uniform+omnidrop:diversity=0"
  omnidrop eval --summary results more-results --out all

\b
A SET is a JSONL file, avsynth (built in), or a benchmark as FORMAT:FOLDER:
  worldsense, daily-omni, avut, video-mme, music-avqa, omnivideobench, avsynth
One line of JSONL is one question:
  id, video, question, answer   required; video beside the file or in --videos
  choices                       optional; answer is one of them, or its letter
  category, start, end, groups  optional

Every clip is encoded once. The unpruned model always runs as the control. --out gets records.jsonl
(one line per question, method and budget), summary.json, .md and .csv, pairs.csv, and the figure
accuracy.png and .svg; a call that was stopped goes on where it was, and errors are tried again.
Several processes may fill one folder. The exit code is 6 if any question ended in an error.
"""


@grouped
def command(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SET", help="A question set; folders with --summary."),
    ] = None,
    *,
    entrants: EntrantFlags,
    questions: SetFlags,
    result: ResultFlags,
    read: ReadFlags,
    model: ModelFlags,
) -> int:
    """Compare methods on a question set."""
    from omnidrop_cli import backend
    from omnidrop_cli.files.evaluation import check_folder, show, write_files

    backend.hush(result.debug)
    named = list(sources or ())
    if not named:
        raise UsageError(
            "A question set is missing." if not result.summary else "A folder is missing.",
            hint="Type: omnidrop eval questions.jsonl --out results",
        )
    if result.out is not None:
        check_folder(result.out)
    if result.summary:
        summary = _add_up([Path(name) for name in named], entrants)
    else:
        if len(named) > 1:
            raise UsageError("One question set at a time.", hint="Run the others by themselves.")
        if read.audio_file is not None:
            raise UsageError("--audio would give every clip the same sound.", hint="Drop it.")
        if result.out is None:
            raise UsageError("--out is missing.", hint="Say where results go: --out results")
        _run(named[0], result.out, entrants, questions, result, read, model)
        summary = _add_up([result.out], entrants)
    if result.out is not None:
        write_files(summary, result.out)
    show(summary, as_json=result.json)
    return BatchError.exit_code if summary.failed else 0


def _add_up(folders: list[Path], entrants: EntrantFlags) -> Summary:
    from omnidrop.evaluation.summary import summarise

    return summarise(folders, baselines=entrants.baselines)


def _run(
    source: str,
    out: Path,
    entrants: EntrantFlags,
    flags: SetFlags,
    result: ResultFlags,
    read: ReadFlags,
    model: ModelFlags,
) -> None:
    """Ask what is not in the folder yet."""
    from omnidrop.evaluation.runner import RunOptions, Tally, cells, run
    from omnidrop.evaluation.sets import read_set
    from omnidrop.pruning.registry import method_names
    from omnidrop_cli import backend
    from omnidrop_cli import errors as guard
    from omnidrop_cli.files.evaluation import Watch
    from omnidrop_cli.options.common import SpanFlags

    found = read_set(source, videos=flags.videos, limit=flags.limit)
    names = tuple(method_names()) if entrants.every else entrants.names
    chosen = cells(names, entrants.shares, settings=entrants.fields(), variants=entrants.labelled())
    _check_baselines(entrants, {cell.label for cell in chosen}, out)
    options = RunOptions(
        seed=flags.seed,
        score=flags.score,  # type: ignore[arg-type]
        style=flags.style,  # type: ignore[arg-type]
        max_new_tokens=flags.max_new_tokens,
        system=flags.system,
        clip=backend.clip_options(SpanFlags(), read),
    )
    watch = Watch(len(found.items) * len(chosen), quiet=result.quiet)
    if not watch.bar.shown:
        backend.hide_downloads()
    tally = Tally()
    with watch.bar:
        watch.bar("load the model", 0, None)
        loaded = backend.load(model)
        tally = run(
            loaded,
            found,
            chosen,
            out,
            options,
            on_record=watch,
            on_problem=guard.stop_if_interrupted,
        )
    watch.close(tally)


def _check_baselines(entrants: EntrantFlags, labels: set[str], out: Path) -> None:
    """Say before hours of work that a baseline is not among what runs or ran."""
    from omnidrop.evaluation.records import read_records

    missing = [name for name in entrants.baselines or () if name not in labels]
    if missing and out.is_dir():
        labels = labels | {record["label"] for record in read_records(out)[0]}
        missing = [name for name in missing if name not in labels]
    if missing:
        raise UsageError(
            f"The baseline {missing[0]!r} does not run.",
            hint=f"Runs: {', '.join(sorted(labels))}.",
        )


__all__ = ["HELP", "NAME", "command"]
