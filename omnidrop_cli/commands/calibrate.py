"""`omnidrop calibrate SET`: settings of a method that fit a model, checked on held-out clips."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnidrop.errors import UsageError, printable
from omnidrop_cli.options.calibrate import AskFlags, PresetFlags, TryFlags
from omnidrop_cli.options.common import ModelFlags, ReadFlags
from omnidrop_cli.options.groups import grouped

if TYPE_CHECKING:
    from omnidrop.evaluation.calibrate.search import Calibration, Gain, Side

NAME = "calibrate"
HELP = """Find the settings of a method that keep most accuracy at a budget, for one model.

\b
Examples:
  omnidrop calibrate samples/questions.jsonl --dry-run
  omnidrop calibrate samples/questions.jsonl --candidates 4 --out mine.json
  omnidrop ask samples/duet.mp4 "Is there a violin?" --preset mine.json
  omnidrop calibrate samples/questions.jsonl --method fastv --budget .5 \\
      --try after=1,2,3 --only --candidates 4 --out fastv.json
  omnidrop calibrate my-questions.jsonl --model 7b -b .3,.1 --out 7b.json
  omnidrop calibrate my-questions.jsonl --model 7b --evidence --out 7b.json

The clips are split in two. Settings are compared on the first part, on the same questions; the best
is then compared with the defaults on the other part. Unless it is better there beyond doubt (95 %
interval above 0, at least 20 questions about 6 clips), the preset holds the defaults. A question
with choices counts by the probability of the right one.

With --evidence the questions of SET say when their evidence is in the clip, in seconds:
"evidence": [[3.5, 6.0]]. The attention (layer, rows, heads) whose strongest moment meets it most
often is chosen on every other clip, and the others tell how often it is right. `omnidrop ask
--preset FILE` then names the moments, unless that is no better than chance.

SET is what `omnidrop eval` takes. A few dozen clips with choices are enough to begin with.
Questions that the model is known not to understand are left out, unless --anyway is given.
"""


@grouped
def command(
    source: Annotated[str, typer.Argument(metavar="SET", help="A question set.")],
    *,
    search: TryFlags,
    questions: AskFlags,
    output: PresetFlags,
    read: ReadFlags,
    model: ModelFlags,
) -> int:
    """Find settings of a method."""
    from omnidrop.evaluation.calibrate.grid import ranges_of
    from omnidrop.evaluation.calibrate.search import calibrate, most_asks, split, too_few
    from omnidrop.evaluation.sets import read_set
    from omnidrop.files import to_json, write_whole
    from omnidrop.models.locations import recommended_by_name
    from omnidrop_cli.errors import complain
    from omnidrop_cli.interrupts import telling
    from omnidrop_cli.libraries import silence_warnings
    from omnidrop_cli.loading import load_model
    from omnidrop_cli.terminal.console import is_terminal
    from omnidrop_cli.terminal.progress import Progress

    silence_warnings(output.debug)
    if output.out is None and not output.dry_run:
        raise UsageError("--out is missing.", hint="Say where the preset goes: --out mine.json")
    if read.audio_file is not None:
        raise UsageError("--audio would give every clip the same audio.", hint="Drop it.")
    if search.evidence:
        from omnidrop_cli.commands.calibrate_evidence import calibrate_evidence

        return calibrate_evidence(source, search, questions, output, read, model)
    method, budgets = search.for_model(recommended_by_name(model.model))
    wanted = search.search(budgets, questions.seed)
    options = questions.run_options(read.clip_options())
    ranges = ranges_of(method, search.ranges(), only=search.only)
    found = read_set(source, videos=questions.videos, limit=questions.limit)
    train, held = split(found, wanted)
    most = most_asks(ranges, len(train), len(held), wanted)
    if not output.quiet:
        _announce(ranges, len(train), len(held), most)
        if reason := too_few((len(held), len({item.video for item in held}))):
            complain(f"{reason}: the preset will hold the defaults.", "notice")
    if output.dry_run or output.out is None:
        return 0
    progress = Progress(is_terminal(sys.stderr) and not output.quiet)
    asked = 0
    trials = output.out.with_name(output.out.name + ".trials.jsonl")

    def on_ask() -> None:
        nonlocal asked
        asked += 1
        progress("questions", asked, most)

    def tell_kept() -> None:
        if asked and not output.quiet:
            complain(
                f"What was asked is in {printable(trials)}. The same command goes on from there.",
                "interrupted",
            )

    with telling(tell_kept), progress:
        result = calibrate(
            load_model(model, progress, quiet=output.quiet),
            found,
            method,
            wanted,
            ranges=ranges,
            options=options,
            trials=trials,
            on_ask=on_ask,
        )
        progress.finish()
    text = to_json(result.preset.document(), indent=1)
    write_whole(output.out, text + "\n", output.force)
    print(text if output.json else _report(result))
    if not output.quiet:
        print(f"omnidrop: wrote {output.out}", file=sys.stderr)
    return 0


def _announce(ranges: dict[str, tuple[Any, ...]], train: int, held: int, most: int) -> None:
    from omnidrop.format import setting
    from omnidrop_cli.terminal.columns import table

    rows = [(name, " ".join(setting(v) for v in values)) for name, values in ranges.items()]
    print("omnidrop: values tried", file=sys.stderr)
    print(table(rows, indent=2), file=sys.stderr)
    print(
        f"omnidrop: {train} questions to choose by, {held} held out; "
        f"at most {most} are asked in all",
        file=sys.stderr,
        flush=True,
    )


def _report(result: Calibration) -> str:
    """Return the result in words and one table."""
    from omnidrop.format import setting
    from omnidrop_cli.terminal.columns import table

    def fields(found: Any) -> str:
        return " ".join(f"{k}={setting(v)}" for k, v in found.items()) or "the defaults"

    budgets = ", ".join(f"{budget:g}" for budget in result.budgets)
    rows: list[tuple[str, ...]]
    rows = [("", "accuracy, %", "95 %", "p(right)", "FLOPs, %", "clips")]
    for name, side in (("chosen by", result.train), ("held out", result.held_out)):
        rows += _rows(name, side)
    lines = [
        f"{result.method} at {budgets}: {fields(result.best)}",
        "",
        table(rows),
        "",
        _verdict(result),
    ]
    if result.train.guessing:
        lines += [
            "",
            f"! EVEN THE BEST SETTING IS NOT ABOVE CHANCE ({100 * result.train.chance:.1f} %): "
            "this calibration says nothing. Ask more questions, put them in another style "
            "(--style), or take a model that can answer them.",
        ]
    if result.outside:
        lines += [
            "",
            f"{result.outside} questions are outside of what the model knows and were left out; "
            "--anyway asks them too.",
        ]
    return "\n".join(lines)


def _rows(name: str, side: Side) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for label, one in (("found", side.chosen), ("defaults", side.default)):
        if one is not None:
            span = f"{100 * one.low:.1f} to {100 * one.high:.1f}"
            numbers = f"{100 * one.accuracy:.1f}", span, f"{one.score:.3f}"
            rows.append((f"{name}: {label}", *numbers, f"{100 * one.flops:.1f}", f"{side.clips}"))
    return rows


def _verdict(result: Calibration) -> str:
    if not result.best:
        return "Nothing tried was better than the defaults; the preset holds them."
    gain = result.held_out.gain
    if gain is None:
        return "The defaults cannot reach this budget; the preset holds what was found."
    points = (
        f"{100 * gain.accuracy:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}, "
        f"p = {gain.p:.2g}), p(right) {gain.score:+.3f} "
        f"({gain.score_low:+.3f} to {gain.score_high:+.3f})"
    )
    if not result.better:
        return f"{_doubt(result.held_out, gain)}: {points}. The preset holds the defaults."
    return f"Held out, against the defaults: {points}."


def _doubt(held: Side, gain: Gain) -> str:
    """Return why what was found is not preferred, and how many questions it would take."""
    from omnidrop.evaluation.calibrate.search import too_few

    needed = gain.questions_needed(held.questions)
    take = (
        "" if needed is None else f"; a gain of this size needs about {needed} held-out questions"
    )
    if reason := too_few(held):
        return f"Too few questions to prefer anything ({reason}{take})"
    if needed is None:
        return "Held out, it is no better than the defaults"
    return f"Held out, it may be no better than the defaults: the interval holds 0{take}"


__all__ = ["HELP", "NAME", "command"]
