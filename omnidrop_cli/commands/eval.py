"""`omnidrop eval SET`: methods compared on the same questions; can be stopped and continued."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnidrop.errors import UsageError
from omnidrop_cli.options.common import ModelFlags, ReadFlags
from omnidrop_cli.options.eval import EntrantFlags, ResultFlags, SetFlags
from omnidrop_cli.options.groups import grouped

if TYPE_CHECKING:
    from omnidrop import Model
    from omnidrop.evaluation.runner import Cell
    from omnidrop.evaluation.summary import Summary

NAME = "eval"
HELP = """Compare methods on a question set: accuracy, cost, and paired differences.

\b
Examples:
  omnidrop eval samples/questions.jsonl --out results --budget .5,.2
  omnidrop eval samples/questions.jsonl --out more -b .2 --method uniform
  omnidrop eval --summary results more --out all --latex tables.tex
  omnidrop eval samples/questions.jsonl --out draws --method random --seeds 3
  omnidrop eval samples/questions.jsonl --out even -b .2 --method omnidrop \\
      --variant "even=uniform+omnidrop:diversity=0" --set omnidrop.diversity=0
  omnidrop eval avsynth --videos clips --method omnidrop,fastv -b .3 --out av
  omnidrop eval worldsense:/data/WorldSense --model 7b --limit 200 --out ws

\b
A SET is a JSONL file, avsynth (built in), or a benchmark as FORMAT:FOLDER:
  worldsense, daily-omni, avut, video-mme, music-avqa, omnivideobench,
  lvomnibench, avsynth
One line of JSONL is one question:
  id, video, question, answer   required; video beside the file or in --videos
  choices                       optional; answer is one of them, or its letter
  category, start, end, groups  optional

Every clip is encoded once. The unpruned model always runs as the control. --out gets records.jsonl
(one line per question, method and budget), summary.json, .md, .tex and .csv, pairs.csv, changed.csv
(answers that pruning changed), kept.csv (tokens that enter each layer), and the figure accuracy.png
and .svg; a call that was stopped continues, and errors are tried again. Several processes may fill
one folder. A question that the model is known not to understand is an error, unless --anyway is
given. The exit code is 6 if any question ended in an error. --method all leaves out what needs a
network that was not trained for the model, and says so.

The clips of avsynth are made by `python samples/make_clips.py --out clips`.
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
    from omnidrop_cli.errors import batch_code
    from omnidrop_cli.files.evaluation import check_folder, show, write_files
    from omnidrop_cli.libraries import silence_warnings

    silence_warnings(result.debug)
    named = list(sources or ())
    if not named:
        raise UsageError(
            "A question set is missing." if not result.summary else "A folder is missing.",
            hint="Type: omnidrop eval questions.jsonl --out results",
        )
    if result.out is not None:
        check_folder(result.out)
    if result.summary:
        summary = _summarise([Path(name) for name in named], entrants)
    else:
        if len(named) > 1:
            raise UsageError("One question set at a time.", hint="Run the others separately.")
        if read.audio_file is not None:
            raise UsageError("--audio would give every clip the same audio.", hint="Drop it.")
        if result.out is None:
            raise UsageError("--out is missing.", hint="Say where results go: --out results")
        _run(named[0], result.out, entrants, questions, result, read, model)
        summary = _summarise([result.out], entrants)
    if result.out is not None:
        write_files(summary, result.out)
    if result.latex is not None:
        from omnidrop.evaluation.tables import to_latex
        from omnidrop.files import write_whole

        write_whole(result.latex, to_latex(summary), result.force)
    show(summary, as_json=result.json)
    return batch_code(summary.failed)


def _summarise(folders: list[Path], entrants: EntrantFlags) -> Summary:
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
    from omnidrop.evaluation.runner import Tally, cells, draws, run
    from omnidrop.evaluation.sets import read_set
    from omnidrop.pruning.registry import method_names
    from omnidrop_cli.files.evaluation import Watch
    from omnidrop_cli.interrupts import stop_if_interrupted, telling
    from omnidrop_cli.loading import load_model

    options = flags.run_options(read.clip_options())
    found = read_set(source, videos=flags.videos, limit=flags.limit)
    names = tuple(method_names()) if entrants.every else entrants.names
    chosen = cells(names, entrants.shares, settings=entrants.fields(), variants=entrants.labelled())
    _check_baselines(entrants, {cell.label for cell in chosen}, out)
    watch = Watch(len(found.items) * len(draws(chosen, options.seeds)), quiet=result.quiet)
    tally = Tally()
    with telling(lambda: watch.tell_kept(out)), watch.bar:
        loaded = load_model(model, watch.bar, quiet=result.quiet)
        if entrants.every:
            chosen = _without_untrained(chosen, loaded, entrants)
            _check_baselines(entrants, {cell.label for cell in chosen}, out)
            watch.total = len(found.items) * len(draws(chosen, options.seeds))
        tally = run(
            loaded,
            found,
            chosen,
            out,
            options,
            on_record=watch,
            on_problem=stop_if_interrupted,
        )
    watch.close(tally)


def _without_untrained(
    chosen: tuple[Cell, ...], loaded: Model, entrants: EntrantFlags
) -> tuple[Cell, ...]:
    """Leave out of "all" what needs a network that was not trained for this model, and say so."""
    from omnidrop_cli.errors import complain

    asked = {*entrants.names, *entrants.fields(), *(label for label, *_ in entrants.labelled())}
    missing: set[str] = set()
    for cell in chosen:
        problem = None if cell.label in asked | missing else loaded.lacks(cell.method)
        if problem is not None:
            missing.add(cell.label)
            complain(f"{cell.label} is left out. {problem} {problem.hint}", "notice")
    return tuple(cell for cell in chosen if cell.label not in missing)


def _check_baselines(entrants: EntrantFlags, labels: set[str], out: Path) -> None:
    """Refuse a baseline that neither runs nor ran, before hours of work."""
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
