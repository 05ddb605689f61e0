"""`omnidrop profile CLIP [QUESTION]`: every stage timed, pruned and unpruned, in one process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnidrop.errors import UsageError, printable
from omnidrop.files import check_target
from omnidrop_cli.completion import clips
from omnidrop_cli.options.common import ModelFlags, ReadFlags, SpanFlags
from omnidrop_cli.options.groups import grouped, option
from omnidrop_cli.options.profile import (
    QUESTION,
    CompareFlags,
    EstimateFlags,
    FileFlags,
    OverlayFlags,
    RoundFlags,
    labels_of,
)

if TYPE_CHECKING:
    from omnidrop.profiling.result import Profile

NAME = "profile"
HELP = """Measure every stage of answering, unpruned and pruned, on the same clip and question.

\b
Examples:
  omnidrop profile samples/duet.mp4 --budget 0.2
  omnidrop profile samples/duet.mp4 "Is there a piano?" -b .5 \\
      --method omnidrop,fastv
  omnidrop profile samples/duet.mp4 --sweep --save sweep.html --save sweep.png
  omnidrop profile samples/flash.mp4 --overlay kept.mp4
  omnidrop profile samples/long.mp4 --model 7b --dry-run

The unpruned control and each method at each budget run in turns, after a warm-up, from opening the
file to the last token. The report goes to stdout, the names of files written to stderr.

\b
--save FILE.png or FILE.svg writes one file for each figure:
  FILE-heatmap.png, FILE-stages.png, FILE-sweep.png, FILE-contact.png

A name that ends in one of these words, like contact.png, gets that figure alone. --overlay shows
the run that keeps the fewest tokens.
"""


@grouped
def command(
    clip: Annotated[
        Path, typer.Argument(metavar="CLIP", help="A local media file.", autocompletion=clips)
    ],
    question: Annotated[
        str, typer.Argument(metavar="[QUESTION]", help=f"What is asked ({QUESTION!r}).")
    ] = QUESTION,
    dry_run: Annotated[
        bool,
        option("--dry-run", panel="Estimate", help="Estimate only, as `omnidrop estimate` does."),
    ] = False,
    *,
    compare: CompareFlags,
    rounds: RoundFlags,
    estimate: EstimateFlags,
    sight: OverlayFlags,
    files: FileFlags,
    span: SpanFlags,
    read: ReadFlags,
    model: ModelFlags,
) -> int:
    """Measure every stage of answering."""
    from omnidrop.models.locations import recommended_by_name
    from omnidrop_cli.commands.answering import open_clip
    from omnidrop_cli.errors import complain
    from omnidrop_cli.files import profile as files_written
    from omnidrop_cli.libraries import silence_warnings
    from omnidrop_cli.loading import load_model
    from omnidrop_cli.terminal.console import is_terminal
    from omnidrop_cli.terminal.progress import Progress

    silence_warnings(files.debug)
    options = read.clip_options(span)
    if dry_run:
        from omnidrop_cli.commands.estimate import estimated, show

        if files.save or sight.overlay is not None:
            raise UsageError(
                "--dry-run measures nothing that --save or --overlay could show.",
                hint="Use --json for the estimate.",
            )
        show(
            estimated(
                clip, question, compare, model, options, system=rounds.system, flags=estimate
            ),
            files.json,
        )
        return 0
    open_clip(clip, span, read).close()  # refuses a bad clip before a model is loaded
    recommended = recommended_by_name(model.model)
    drops = compare.drops(recommended)
    labels = labels_of(drops, recommended)
    methods = [drop.pruning(recommended) for drop in drops]
    files_written.check(files.targets, labels, files.force)
    if sight.overlay is not None:
        check_target(sight.overlay, files.force)
    from omnidrop.profiling import measure, replay

    with Progress(is_terminal(sys.stderr) and not files.quiet) as progress:
        loaded = load_model(model, progress, quiet=files.quiet)
        found = measure.profile(
            loaded,
            clip,
            question,
            methods,
            labels=labels,
            clip=options,
            options=rounds.generate(),
            system=rounds.system,
            repeats=rounds.repeats,
            warmup=rounds.warmup,
            progress=progress,
        )
        progress.finish()
        _show(found, files)
        written: list[Path] = []
        progress("draw", 0, None)
        for target in files.targets:
            written += files_written.save(
                target,
                found,
                lambda run: replay.replay(loaded, clip, run, clip=options, layer=sight.layer),
                files.force,
            )
        if sight.overlay is not None:
            replay.overlay(
                loaded,
                clip,
                min(found.runs or (found.control,), key=lambda run: run.realised),
                sight.overlay,
                clip=options,
                layer=sight.layer,
                force=files.force,
            )
            written.append(sight.overlay)
        progress.finish()
    if not files.quiet:
        for path in written:
            complain(printable(path), "wrote")
    return 0


def _show(found: Profile, files: FileFlags) -> None:
    """Write the report, or the document, to stdout."""
    if files.json:
        from omnidrop.files import to_json

        print(to_json(found.to_dict(), indent=2), flush=True)
    elif not files.quiet:
        from omnidrop_cli.terminal.console import terminal
        from omnidrop_cli.terminal.profile import report

        terminal(sys.stdout).print(report(found))


__all__ = ["HELP", "NAME", "command"]
