"""`omnidrop estimate CLIP [QUESTION]`: tokens, FLOPs, memory and time before anything is loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnidrop_cli.completion import clips
from omnidrop_cli.options.common import Debug, Json, ModelFlags, ReadFlags, SpanFlags
from omnidrop_cli.options.groups import grouped, option
from omnidrop_cli.options.profile import QUESTION, CompareFlags, EstimateFlags, labels_of

if TYPE_CHECKING:
    from rich.text import Text

    from omnidrop.clip.options import ClipOptions
    from omnidrop.profiling.estimate import Estimate, RunEstimate

NAME = "estimate"
HELP = """Estimate tokens, FLOPs, memory and time of a question; no weights are loaded.

\b
Examples:
  omnidrop estimate samples/duet.mp4 --budget .5,.2
  omnidrop estimate samples/long.mp4 --model 7b --4bit --max-pixels 100352
  omnidrop estimate samples/long.mp4 --model 7b --memory 24GB
  omnidrop estimate samples/long.mp4 --model 7b --tflops 400 --json

3b and 7b need not be downloaded. Times are FLOPs over the speed of a large matrix product, timed
here or given by --tflops: a lower bound, without reading the file and without decoding the answer.
"""


@grouped
def command(
    clip: Annotated[
        Path, typer.Argument(metavar="CLIP", help="A local media file.", autocompletion=clips)
    ],
    question: Annotated[
        str, typer.Argument(metavar="[QUESTION]", help=f"What is asked ({QUESTION!r}).")
    ] = QUESTION,
    system: Annotated[
        str | None,
        option(
            "--system",
            panel="Estimate",
            metavar="TEXT",
            help="System prompt instead of the model's own.",
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
    *,
    compare: CompareFlags,
    estimate: EstimateFlags,
    span: SpanFlags,
    read: ReadFlags,
    model: ModelFlags,
) -> int:
    """Estimate what a question costs."""
    from omnidrop_cli.libraries import silence_warnings

    silence_warnings(debug)
    options = read.clip_options(span)
    found = estimated(clip, question, compare, model, options, system=system, flags=estimate)
    show(found, json)
    return 0


def estimated(
    clip: Path,
    question: str,
    compare: CompareFlags,
    model: ModelFlags,
    options: ClipOptions,
    *,
    system: str | None,
    flags: EstimateFlags,
) -> Estimate:
    """Return the library's estimate of every run."""
    from omnidrop_cli.commands.answering import check_file

    check_file(clip)
    from omnidrop.models.locations import recommended_by_name
    from omnidrop.profiling.estimate import estimate

    recommended = recommended_by_name(model.model)
    drops = compare.drops(recommended)
    return estimate(
        clip,
        question,
        [drop.pruning(recommended) for drop in drops],
        labels=labels_of(drops, recommended),
        model=model.load_options(),
        clip=options,
        system=system,
        tflops=flags.tflops,
        memory=flags.memory,
    )


def show(found: Estimate, json: bool) -> None:
    """Write the estimate, or the document, to stdout."""
    if json:
        from omnidrop.files import to_json

        print(to_json(found.to_dict(), indent=2), flush=True)
        return
    from omnidrop_cli.terminal.answer import Layout
    from omnidrop_cli.terminal.console import terminal

    terminal(sys.stdout).print(Layout(lambda width, ink: _report(found, width)))


def _report(found: Estimate, width: int) -> Iterator[Text]:
    from rich.text import Text

    from omnidrop import format as fmt
    from omnidrop.profiling.card import described
    from omnidrop_cli.terminal import sections
    from omnidrop_cli.terminal.profile import columns

    tokens, model = found.tokens, found.model
    yield sections.title("OmniDrop estimate", width)
    yield from sections.field("clip", found.clip, width)
    yield from sections.field("question", found.question, width)
    parts = [str(model["name"]), fmt.parameters(model["parameters"])]
    parts += [f"weights {fmt.size(model['weights'])}", str(model["quantization"] or "")]
    parts += [str(model["dtype"]), str(model["device"])]
    yield from sections.field("model", " · ".join(part for part in parts if part), width)
    grid = f", a grid of {' × '.join(map(str, tokens.grid))} patches" if tokens.grid else ""
    counts = f"{fmt.number(tokens.video)} video{grid} · {fmt.number(tokens.audio)} audio"
    about = "" if tokens.counted else "about "
    yield from sections.field("tokens", f"{counts} · {about}{tokens.text} text", width)
    encoders = f"vision {fmt.flops(found.flops_vision)} · audio {fmt.flops(found.flops_audio)}"
    yield from sections.field("encoders", encoders, width)
    yield from sections.field("speed", f"{fmt.flops(found.speed)}/s, {found.speed_of}", width)
    for line in described(found.room) if found.room is not None else ():
        yield from sections.field("memory", line, width, "bold")
    for notice in found.notices:
        yield from sections.field("! notice", notice, width, "bold")
    yield Text()
    yield sections.title("Runs", width)
    yield from columns([_head(), *(_row(run, found) for run in found.all)], width)
    note = (
        "prefill: the LLM's FLOPs, and the control's divided by them. peak: weights and the most "
        "memory in use besides. TTFT: a lower bound, without reading the file."
    )
    yield from sections.note(note, width)


def _head() -> list[tuple[str, str]]:
    names = ("run", "kept", "first layer", "last", "prefill", "×", "KV cache", "peak", "TTFT ≥")
    return [(name, "dim") for name in names]


def _row(run: RunEstimate, found: Estimate) -> list[tuple[str, str]]:
    from omnidrop import format as fmt

    control = run is found.control
    return [
        (run.label, "bold"),
        (fmt.share(run.realised, 0), ""),
        (fmt.number(run.counts[0]), ""),
        (fmt.number(run.counts[-1]), ""),
        (fmt.flops(run.flops_prefill).replace("FLOP", ""), ""),
        ("" if control else f"{run.speedup:.2f}", "bold"),
        (fmt.size(run.kv_cache), ""),
        (fmt.size(run.peak), ""),
        (fmt.duration(run.seconds), "bold"),
    ]


__all__ = ["HELP", "NAME", "command", "show"]
