"""`omnidrop calibrate SET`: settings of a method that fit a model, checked on held-out clips."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnidrop.errors import UsageError
from omnidrop_cli.options.calibrate import AskFlags, PresetFlags, TryFlags
from omnidrop_cli.options.common import ModelFlags, ReadFlags
from omnidrop_cli.options.groups import grouped

if TYPE_CHECKING:
    from omnidrop.evaluation.calibrate.search import Calibration, Side

NAME = "calibrate"
HELP = """Find the settings of a method that keep most accuracy at a budget, for one model.

\b
Examples:
  omnidrop calibrate questions.jsonl --budget 0.2 --out mine.json
  omnidrop calibrate avsynth --videos clips --budget .3,.1 --out demo.json
  omnidrop calibrate q.jsonl --method fastv --try after=1,2,3 --out fastv.json
  omnidrop calibrate questions.jsonl --dry-run
  omnidrop ask clip.mp4 "Who speaks?" --preset mine.json

The clips are split in two. On the first part settings compete, the same questions for all; the
winner is then asked about the other part, beside the defaults. Where it does no better there, the
preset holds the defaults. A question with choices counts by the probability of the right one.

SET is what `omnidrop eval` takes. A few dozen clips with choices are enough to begin with.
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
    from omnidrop.evaluation.calibrate.search import Search, calibrate, most_asks, split
    from omnidrop.evaluation.runner import RunOptions
    from omnidrop.evaluation.sets import read_set
    from omnidrop_cli import backend
    from omnidrop_cli import errors as guard
    from omnidrop_cli.files.stdout import to_json
    from omnidrop_cli.options.common import SpanFlags
    from omnidrop_cli.terminal.progress import Progress

    backend.hush(output.debug)
    if output.out is None and not output.dry_run:
        raise UsageError("--out is missing.", hint="Say where the preset goes: --out mine.json")
    if read.audio_file is not None:
        raise UsageError("--audio would give every clip the same sound.", hint="Drop it.")
    wanted = Search(
        budgets=search.shares,
        candidates=search.candidates,
        held_out=search.held_out,
        price=search.price,
        seed=questions.seed,
    )
    ranges = ranges_of(search.method, search.ranges(), only=search.only)
    found = read_set(source, videos=questions.videos, limit=questions.limit)
    train, held = split(found, wanted)
    most = most_asks(ranges, len(train), len(held), wanted)
    if not output.quiet:
        _announce(ranges, len(train), len(held), most)
    if output.dry_run or output.out is None:
        return 0
    progress = Progress(guard.is_terminal(sys.stderr) and not output.quiet)
    if not progress.shown:
        backend.hide_downloads()
    asked = 0

    def on_ask() -> None:
        nonlocal asked
        asked += 1
        progress("questions", asked, most)

    with progress:
        progress("load the model", 0, None)
        result = calibrate(
            backend.load(model),
            found,
            search.method,
            wanted,
            ranges=ranges,
            options=RunOptions(
                seed=questions.seed,
                style=questions.style,  # type: ignore[arg-type]
                system=questions.system,
                clip=backend.clip_options(SpanFlags(), read),
            ),
            trials=output.out.with_name(output.out.name + ".trials.jsonl"),
            on_ask=on_ask,
        )
        progress.finish()
    document = result.preset.document()
    try:
        with output.out.open("w" if output.force else "x", encoding="utf-8") as stream:
            stream.write(to_json(document, indent=1) + "\n")
    except OSError as problem:
        raise UsageError(
            f"The preset cannot be written ({problem.strerror}).", path=output.out
        ) from problem
    print(to_json(document, indent=1) if output.json else _report(result))
    if not output.quiet:
        print(f"omnidrop: wrote {output.out}", file=sys.stderr)
    return 0


def _announce(ranges: dict[str, tuple[Any, ...]], train: int, held: int, most: int) -> None:
    from omnidrop_cli.terminal.columns import table
    from omnidrop_cli.terminal.format import setting

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
    from omnidrop_cli.terminal.columns import table
    from omnidrop_cli.terminal.format import setting

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
        return f"Held out, it is no better than the defaults: {points}. The preset holds them."
    return f"Held out, against the defaults: {points}."


__all__ = ["HELP", "NAME", "command"]
