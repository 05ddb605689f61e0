"""`omnidrop estimate CLIP [QUESTION]`: tokens, FLOPs, memory and time before anything is loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnidrop_cli.options.common import ModelFlags, ReadFlags, SpanFlags
from omnidrop_cli.options.groups import grouped, option
from omnidrop_cli.options.profile import QUESTION, CompareFlags, EstimateFlags, labels_of

if TYPE_CHECKING:
    from rich.text import Text

    from omnidrop.profiling.estimate import Estimate, RunEstimate

NAME = "estimate"
HELP = """Estimate tokens, FLOPs, memory and time of a question; no weights are loaded.

\b
Examples:
  omnidrop estimate clip.mp4 --budget .5,.2
  omnidrop estimate clip.mp4 --model 7b --4bit --max-pixels 100352
  omnidrop estimate clip.mp4 --model 7b --tflops 400 --json

3b and 7b need not be downloaded. Times are FLOPs over the speed of a large matrix product, timed
here or stated by --tflops: a floor, without reading the file and without decoding the answer.
"""


@grouped
def command(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A local media file.")],
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
    json: Annotated[
        bool, option("--json", panel="Output", help="One JSON document on stdout.")
    ] = False,
    debug: Annotated[
        bool, option("--debug", panel="Output", help="Show tracebacks and library warnings.")
    ] = False,
    *,
    compare: CompareFlags,
    estimate: EstimateFlags,
    span: SpanFlags,
    read: ReadFlags,
    model: ModelFlags,
) -> int:
    """Estimate what a question costs."""
    from omnidrop_cli import backend

    backend.hush(debug)
    backend.check_clip(clip, span, read)
    drops = compare.drops()
    methods = [backend.method(drop) for drop in drops]
    found = backend.estimate(
        clip, question, methods, labels=labels_of(drops), model=model, span=span, read=read,
        system=system, tflops=estimate.tflops,
    )  # fmt: skip
    show(found, json)
    return 0


def show(found: Estimate, json: bool) -> None:
    """Write the estimate, or the document, to stdout."""
    if json:
        from omnidrop_cli.files.stdout import to_json

        print(to_json(found.to_dict(), indent=2), flush=True)
        return
    from omnidrop_cli.terminal.answer import View
    from omnidrop_cli.terminal.console import terminal

    terminal(sys.stdout).print(View(lambda width, ink: _report(found, width)))


def _report(found: Estimate, width: int) -> Iterator[Text]:
    from rich.text import Text

    from omnidrop_cli.terminal import format as words
    from omnidrop_cli.terminal import profile as profile_views
    from omnidrop_cli.terminal import sections as blocks

    tokens, model = found.tokens, found.model
    yield blocks.title("OmniDrop estimate", width)
    yield from blocks.field("clip", found.clip, width)
    yield from blocks.field("question", found.question, width)
    said = [str(model["name"]), words.parameters(model["parameters"])]
    said += [f"weights {words.size(model['weights'])}", str(model["quantization"] or "")]
    said += [str(model["dtype"]), str(model["device"])]
    yield from blocks.field("model", " · ".join(part for part in said if part), width)
    grid = f", a grid of {' × '.join(map(str, tokens.grid))} patches" if tokens.grid else ""
    counts = f"{words.number(tokens.video)} video{grid} · {words.number(tokens.audio)} audio"
    about = "" if tokens.counted else "about "
    yield from blocks.field("tokens", f"{counts} · {about}{tokens.text} text", width)
    towers = f"vision {words.flops(found.flops_vision)} · audio {words.flops(found.flops_audio)}"
    yield from blocks.field("towers", towers, width)
    yield from blocks.field("speed", f"{words.flops(found.speed)}/s, {found.speed_of}", width)
    for notice in found.notices:
        yield from blocks.field("! notice", notice, width, "bold")
    yield Text()
    yield blocks.title("Runs", width)
    yield from profile_views.columns([_head(), *(_row(run, found) for run in found.all)], width)
    note = (
        "prefill: the LLM's FLOPs, and how many times less than the control. peak: weights and the "
        "most held beside them. TTFT: no less than this; reading the file comes on top."
    )
    yield from blocks.wrapped(Text(f"  {note}", style="dim"), width, 2)


def _head() -> list[tuple[str, str]]:
    names = ("run", "kept", "first layer", "last", "prefill", "×", "KV cache", "peak", "TTFT ≥")
    return [(name, "dim") for name in names]


def _row(run: RunEstimate, found: Estimate) -> list[tuple[str, str]]:
    from omnidrop_cli.terminal import format as words

    control = run is found.control
    return [
        (run.label, "bold"),
        (words.share(run.realised, 0), ""),
        (words.number(run.counts[0]), ""),
        (words.number(run.counts[-1]), ""),
        (words.flops(run.flops_prefill).replace("FLOP", ""), ""),
        ("" if control else f"{run.speedup:.2f}", "bold"),
        (words.size(run.kv_cache), ""),
        (words.size(run.peak), ""),
        (words.duration(run.seconds), "bold"),
    ]


__all__ = ["HELP", "NAME", "command", "show"]
