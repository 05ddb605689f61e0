"""`omnidrop train-selector SET`: train OmniSIFT's audio selector on questions with answers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnidrop.errors import OmniDropError, UsageError, printable
from omnidrop_cli.options.common import Debug, Json, ModelFlags, Quiet, ReadFlags
from omnidrop_cli.options.groups import grouped, option
from omnidrop_cli.options.training import LessonFlags, SelectorFlags

if TYPE_CHECKING:
    from omnidrop import Model
    from omnidrop.clip.options import ClipOptions
    from omnidrop.evaluation.items import QuestionSet
    from omnidrop.training.selector import Lesson, Result

NAME = "train-selector"
HELP = """Train the audio selector that --method omnisift needs, for one model.

\b
Examples:
  omnidrop train-selector samples/questions.jsonl --steps 2 --out sift
  omnidrop ask samples/duet.mp4 "What instrument plays last?" \\
      --method omnisift --set selector=sift
  omnidrop train-selector avsynth --videos clips --epochs 3 --out sift-av
  omnidrop train-selector my-questions.jsonl --model 3b --dtype float32 \\
      --unfreeze --out sift-3b

SET is what `omnidrop eval` takes: questions about clips, each with its answer. Train on questions
that you will not evaluate on. A question is answered from the tokens that the selector leaves, and
the selector learns from the cross-entropy of the answer, by a straight-through estimate. A share of
the clips is held out to measure the loss on: before and after, with audio evenly spaced in place of
the selector's choice, and with every token.

The encoders are not changed. The decoder is not either, unless --unfreeze is given: its layers are
then trained too (embeddings and head are not), and the folder becomes a model's, with the selector
inside: omnidrop ask ... --model FOLDER --method omnisift.

The folder gets selector.safetensors and selector.json, which names the model and the losses. A call
that was stopped goes on where it last saved. A clip that cannot be read does not stop the others;
the exit code is then 6.
"""


@grouped
def command(
    source: Annotated[str, typer.Argument(metavar="SET", help="A question set.")],
    out: Annotated[
        Path,
        option("--out", "-o", panel="Output", metavar="FOLDER", help="The selector goes here."),
    ],
    force: Annotated[
        bool,
        option("--force", panel="Output", help="Begin anew, and replace what is in that folder."),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    questions: LessonFlags,
    training: SelectorFlags,
    read: ReadFlags,
    model: ModelFlags,
) -> int:
    """Train a selector."""
    from omnidrop_cli.errors import batch_code, complain, describe
    from omnidrop_cli.interrupts import telling
    from omnidrop_cli.libraries import silence_warnings
    from omnidrop_cli.loading import load_model
    from omnidrop_cli.terminal.console import is_terminal
    from omnidrop_cli.terminal.progress import Progress

    _check_target(out, force)
    if read.no_audio or read.no_video:
        raise UsageError("Training needs audio and video.", hint="Drop --no-audio or --no-video.")
    if read.audio_file is not None:
        raise UsageError("--audio would give every clip the same audio.", hint="Drop it.")
    silence_warnings(debug)
    from omnidrop.evaluation.sets import read_set
    from omnidrop.training.resuming import STATE
    from omnidrop.training.selector import train

    options = training.selector_options()
    found = read_set(source, videos=questions.videos, limit=questions.limit)
    if force:
        (out / STATE).unlink(missing_ok=True)

    def failed(problem: OmniDropError) -> None:
        complain(describe(problem)[0])

    def tell_kept() -> None:
        if (out / STATE).exists() and not quiet:
            complain(
                f"The steps so far are in {printable(out)}. The same command goes on from there.",
                "interrupted",
            )

    progress = Progress(is_terminal(sys.stderr) and not quiet)
    with telling(tell_kept), progress:
        loaded = load_model(model, progress, quiet=quiet)
        result = train(
            loaded,
            _lessons(found, loaded, questions, read.clip_options()),
            out,
            options,
            system=questions.system,
            progress=progress,
            on_failure=failed,
        )
    _report(result, as_json=json)
    return batch_code(result.failed)


def _lessons(
    found: QuestionSet, model: Model, questions: LessonFlags, options: ClipOptions
) -> list[Lesson]:
    """Return the set's questions as the model is asked, with the replies that are right."""
    from omnidrop.evaluation.runner import RunOptions, style_of
    from omnidrop.evaluation.scoring import ask_text, right_reply
    from omnidrop.training.selector import Lesson
    from omnidrop_cli.options.groups import build

    asked = build(RunOptions, LessonFlags, style=questions.style, clip=options)
    style = style_of(asked, found, model)
    return [
        Lesson(
            item.video,
            ask_text(item, style),
            right_reply(item, style),
            item.clip_options(options),
        )
        for item in found.items
    ]


def _check_target(out: Path, force: bool) -> None:
    from omnidrop.pruning.parts.selector import KIND

    if out.exists() and not out.is_dir():
        raise UsageError("This is a file, not a folder.", path=out, hint="Name another --out.")
    if not os.access(next(p for p in (out, *out.absolute().parents) if p.is_dir()), os.W_OK):
        raise UsageError("This folder cannot be written.", path=out, hint="Name another --out.")
    names = (KIND.settings, KIND.weights, "config.json")
    there = [name for name in names if (out / name).exists()]
    if there and not force:
        raise UsageError(
            f"There is a {there[0]} in it already.",
            path=out,
            hint="Name another --out, or add --force to replace it.",
        )


def _report(result: Result, *, as_json: bool) -> None:
    training: dict[str, Any] = result.trained.training
    if as_json:
        from omnidrop.files import to_json

        document = {
            "schema": "omnidrop.train-selector/1",
            "folder": printable(result.folder),
            "failed": result.failed,
            "training": training,
        }
        print(to_json(document, indent=2))
        return
    from omnidrop_cli.terminal.columns import table

    steps = f"{training['steps']}, decoder {training['decoder']}"
    if result.begin:
        steps += f", {result.begin} of them in an earlier call"
    rows = [
        ("trained on", f"{training['clips']} clips, {training['questions']} questions"),
        ("held out", f"{training['held_out_clips']} clips, "
                     f"{training['held_out_questions']} questions"),
        ("steps", steps),
        ("loss", f"{training['loss_before']:.4f} before, {training['loss']:.4f} after"),
        ("held out", f"{training['held_out_loss_before']:.4f} before, "
                     f"{training['held_out_loss']:.4f} after"),
        ("even audio", f"{training['held_out_loss_even']:.4f} held out"),
        ("every token", f"{training['held_out_loss_unpruned']:.4f} held out, before training"),
        ("folder", printable(result.folder)),
    ]  # fmt: skip
    print(table(rows, indent=0))


__all__ = ["HELP", "NAME", "command"]
