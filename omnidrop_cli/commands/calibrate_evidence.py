"""`omnidrop calibrate SET --evidence`: the attention that tells where answers came from."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from omnidrop_cli.options.calibrate import AskFlags, PresetFlags, TryFlags
from omnidrop_cli.options.common import ModelFlags, ReadFlags

if TYPE_CHECKING:
    from omnidrop.evidence import EvidenceReading


def calibrate_evidence(
    source: str,
    search: TryFlags,
    questions: AskFlags,
    output: PresetFlags,
    read: ReadFlags,
    model: ModelFlags,
) -> int:
    """Choose a reading of evidence, check it, and write it into a preset."""
    from omnidrop import __version__
    from omnidrop.evaluation.evidence import calibrate_reading, halves, with_evidence
    from omnidrop.evaluation.sets import read_set
    from omnidrop.files import to_json, write_whole
    from omnidrop.models.locations import recommended_by_name
    from omnidrop.pruning.presets import Preset
    from omnidrop.pruning.registry import get_method
    from omnidrop_cli.loading import load_model
    from omnidrop_cli.terminal.console import is_terminal
    from omnidrop_cli.terminal.progress import Progress

    options = questions.run_options(read.clip_options())
    found = with_evidence(read_set(source, videos=questions.videos, limit=questions.limit))
    method, budgets = search.for_model(recommended_by_name(model.model))
    methods = [get_method("none")]
    methods += [get_method(method, budget=budget) for budget in budgets]
    chosen_by, checked = halves(found)
    most = len(methods) * (2 * len(chosen_by) + len(checked))
    if not output.quiet:
        print(
            f"omnidrop: {len(chosen_by)} questions to choose by, {len(checked)} held out; at most "
            f"{most} passes through the decoder",
            file=sys.stderr,
            flush=True,
        )
    if output.dry_run or output.out is None:
        return 0
    progress = Progress(is_terminal(sys.stderr) and not output.quiet)
    passes = 0

    def on_pass() -> None:
        nonlocal passes
        passes += 1
        progress("questions", passes, most)

    with progress:
        loaded = load_model(model, progress, quiet=output.quiet)
        reading = calibrate_reading(loaded, found, methods, options, on_pass=on_pass)
        progress.finish()
    made = {
        "model": loaded.info.name,
        "set": found.name,
        "chosen_by": len(chosen_by),
        "held_out": len(checked),
        "omnidrop": __version__,
    }
    preset = Preset(method, budgets, {}, made, reading)
    text = to_json(preset.document(), indent=1)
    write_whole(output.out, text + "\n", output.force)
    print(text if output.json else report(reading))
    if not output.quiet:
        print(f"omnidrop: wrote {output.out}", file=sys.stderr)
    return 0


def report(reading: EvidenceReading) -> str:
    """Return the reading in words and one table."""
    from omnidrop_cli.terminal.columns import table

    heads = ", ".join(map(str, reading.heads)) or "all"
    layers = ", ".join(map(str, reading.layers))
    rows: list[tuple[str, ...]] = [("held out", "questions", "met, %", "95 %", "chance, %", "")]
    for rate in reading.rates:
        rows.append(
            (
                f"{rate.method} {rate.budget:g}",
                f"{rate.questions}",
                f"{100 * rate.share:.1f}",
                f"{100 * rate.low:.1f} to {100 * rate.high:.1f}",
                f"{100 * rate.chance:.1f}",
                "" if rate.above_chance else "not above chance: no moments are shown",
            )
        )
    lines = [
        f"layer {layers}, rows {reading.rows}, heads {heads}, correction {reading.correction}",
        "",
        table(rows),
        "",
        "met: the strongest moment overlaps the evidence. chance: a moment of the same length at a "
        "random place of the clip does.",
    ]
    return "\n".join(lines)
