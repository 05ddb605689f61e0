"""`omnidrop profile CLIP [QUESTION]`: every stage timed, pruned beside unpruned, in one process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnidrop.errors import UsageError, printable
from omnidrop_cli.options.common import ModelFlags, ReadFlags, SpanFlags
from omnidrop_cli.options.groups import grouped, option
from omnidrop_cli.options.profile import (
    QUESTION,
    CompareFlags,
    EstimateFlags,
    FileFlags,
    RoundFlags,
    SightFlags,
    labels_of,
)

if TYPE_CHECKING:
    from omnidrop.profiling.result import Profile

NAME = "profile"
HELP = """Measure every stage of answering, unpruned and pruned, on the same clip and question.

\b
Examples:
  omnidrop profile clip.mp4 --budget 0.2
  omnidrop profile clip.mp4 "Who speaks?" --method omnidrop,fastv -b .5,.2
  omnidrop profile clip.mp4 --sweep --save sweep.html --save sweep.png
  omnidrop profile clip.mp4 --overlay seen.mp4
  omnidrop profile clip.mp4 --model 7b --dry-run

The unpruned control and each method at each budget take turns, after a warm-up, from opening the
file to the last token. The report goes to stdout, the files written are named on stderr.

--save FILE.png or .svg writes the figures as FILE-heatmap.png, FILE-stages.png, FILE-sweep.png and
FILE-contact.png; a name that ends in one of these words gets that figure alone. --overlay shows the
run that keeps least.
"""


@grouped
def command(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A local media file.")],
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
    sight: SightFlags,
    files: FileFlags,
    span: SpanFlags,
    read: ReadFlags,
    model: ModelFlags,
) -> int:
    """Measure every stage of answering."""
    from omnidrop_cli import backend
    from omnidrop_cli import errors as guard
    from omnidrop_cli.files import profile as profile_save
    from omnidrop_cli.files.answers import check_target
    from omnidrop_cli.terminal.progress import Progress

    backend.hush(files.debug)
    backend.check_clip(clip, span, read)
    drops = compare.drops()
    methods, labels = [backend.method(drop) for drop in drops], labels_of(drops)
    if dry_run:
        from omnidrop_cli.commands import estimate as estimating

        if files.save or sight.overlay is not None:
            raise UsageError(
                "--dry-run measures nothing that --save or --overlay could show.",
                hint="Use --json for the estimate.",
            )
        reckoned = backend.estimate(
            clip, question, methods, labels=labels, model=model, span=span, read=read,
            system=rounds.system, tflops=estimate.tflops,
        )  # fmt: skip
        estimating.show(reckoned, files.json)
        return 0
    profile_save.check(files.targets, labels, files.force)
    if sight.overlay is not None:
        check_target(sight.overlay, files.force)
    with Progress(guard.is_terminal(sys.stderr) and not files.quiet) as progress:
        if not progress.shown:
            backend.hide_downloads()
        progress("load the model", 0, None)
        loaded = backend.load(model)
        progress.finish()
        found = backend.profile(
            loaded,
            clip,
            question,
            methods,
            labels=labels,
            span=span,
            read=read,
            rounds=rounds,
            progress=progress,
        )
        progress.finish()
        _show(found, files)
        written: list[Path] = []
        progress("draw", 0, None)
        for target in files.targets:
            written += profile_save.save(
                target,
                found,
                lambda run: backend.look(loaded, clip, run, span, read, sight.layer),
                files.force,
            )
        if sight.overlay is not None:
            backend.overlay(
                loaded,
                clip,
                min(found.runs or (found.control,), key=lambda run: run.realised),
                sight.overlay,
                span=span,
                read=read,
                layer=sight.layer,
                force=files.force,
            )
            written.append(sight.overlay)
        progress.finish()
    if not files.quiet:
        for path in written:
            guard.complain(printable(path), "wrote")
    return 0


def _show(found: Profile, files: FileFlags) -> None:
    """Write the report, or the document, to stdout."""
    if files.json:
        from omnidrop_cli.files.stdout import to_json

        print(to_json(found.to_dict(), indent=2), flush=True)
    elif not files.quiet:
        from omnidrop_cli.terminal import profile as profile_views
        from omnidrop_cli.terminal.console import terminal

        terminal(sys.stdout).print(profile_views.report(found))


__all__ = ["HELP", "NAME", "command"]
