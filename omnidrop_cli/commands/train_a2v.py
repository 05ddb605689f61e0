"""`omnidrop train-a2v CLIP…`: train ContextGuard's audio-to-visual predictor on local clips."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from omnidrop.errors import OmniDropError, UsageError, printable
from omnidrop_cli.completion import clips as clip_names
from omnidrop_cli.options.clips import expand_folders
from omnidrop_cli.options.common import Debug, Json, ModelFlags, Quiet, ReadFlags, Recursive
from omnidrop_cli.options.groups import grouped, option
from omnidrop_cli.options.training import TrainFlags

NAME = "train-a2v"
HELP = """Train the predictor that --method contextguard needs, for one model.

\b
Examples:
  omnidrop train-a2v samples/*.mp4 --steps 100 --out a2v
  omnidrop ask samples/duet.mp4 "What instrument plays last?" \\
      --method contextguard --set predictor=a2v
  omnidrop train-a2v my-clips/*.mp4 --model 3b --out a2v-3b

The clips need no labels. Those with both audio and video are used, and a share of them is held out
to measure the loss on. The model is not changed: only its encoders run, once per clip. The folder
gets a2v.safetensors and a2v.json, which names the model and the losses (1 - cosine).

A clip that cannot be read does not stop the others; the exit code is then 6.
"""


@grouped
def command(
    clips: Annotated[
        list[Path],
        typer.Argument(metavar="CLIP...", help="Local clips.", autocompletion=clip_names),
    ],
    out: Annotated[
        Path,
        option("--out", "-o", panel="Output", metavar="FOLDER", help="The predictor goes here."),
    ],
    force: Annotated[
        bool, option("--force", panel="Output", help="Replace a predictor in that folder.")
    ] = False,
    recursive: Recursive = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    training: TrainFlags,
    read: ReadFlags,
    model: ModelFlags,
) -> int:
    """Train a predictor."""
    from omnidrop_cli.commands.answering import check_file
    from omnidrop_cli.errors import batch_code, complain, describe
    from omnidrop_cli.libraries import silence_warnings
    from omnidrop_cli.loading import load_model
    from omnidrop_cli.terminal.console import is_terminal
    from omnidrop_cli.terminal.progress import Progress

    _check_target(out, force)
    if read.no_audio or read.no_video:
        raise UsageError("Training needs audio and video.", hint="Drop --no-audio or --no-video.")
    silence_warnings(debug)
    clips, notices = expand_folders(clips, recursive=recursive)
    for clip in clips:
        check_file(clip)
    if not quiet:
        for notice in notices:
            complain(notice, "notice")
    from omnidrop.pruning.parts.a2v import KIND
    from omnidrop.training.a2v import Pairs, pairs_of, train

    options = training.train_options()
    progress = Progress(is_terminal(sys.stderr) and not quiet)
    pairs: list[Pairs] = []
    failed = 0
    with progress:
        loaded = load_model(model, progress, quiet=quiet)
        for number, clip in enumerate(clips):
            progress("clips", number, len(clips))
            try:
                with loaded.open(clip, read.clip_options()) as session:
                    pairs.append(pairs_of(session))
            except OmniDropError as problem:
                failed += 1
                complain(describe(problem)[0])
        trained = train(pairs, loaded.adapter, options, progress)
    try:
        KIND.save(out, trained)
    except OSError as problem:
        raise UsageError(
            f"The predictor cannot be written ({problem.strerror}).",
            path=out,
            hint="Name another --out.",
        ) from problem
    _report(out, trained.training, failed, as_json=json)
    return batch_code(failed)


def _check_target(out: Path, force: bool) -> None:
    from omnidrop.pruning.parts.a2v import KIND

    if out.exists() and not out.is_dir():
        raise UsageError("This is a file, not a folder.", path=out, hint="Name another --out.")
    if not os.access(next(p for p in (out, *out.absolute().parents) if p.is_dir()), os.W_OK):
        raise UsageError("This folder cannot be written.", path=out, hint="Name another --out.")
    there = [name for name in (KIND.settings, KIND.weights) if (out / name).exists()]
    if there and not force:
        raise UsageError(
            f"There is a {there[0]} in it already.",
            path=out,
            hint="Name another --out, or add --force to replace it.",
        )


def _report(out: Path, training: dict[str, Any], failed: int, *, as_json: bool) -> None:
    if as_json:
        from omnidrop.files import to_json

        document = {"schema": "omnidrop.train-a2v/1", "folder": printable(out), "failed": failed}
        print(to_json({**document, "training": training}, indent=2))
        return
    from omnidrop_cli.terminal.columns import table

    rows = [
        ("trained on", f"{training['clips']} clips, {training['chunks']} chunks"),
        ("held out", f"{training['held_out_clips']} clips, {training['held_out_chunks']} chunks"),
        ("loss", f"{training['loss']:.4f} in training, {training['held_out_loss']:.4f} held out"),
        ("without audio", f"{training['held_out_loss_without_listening']:.4f} held out"),
        ("folder", printable(out)),
    ]
    print(table(rows, indent=0))
