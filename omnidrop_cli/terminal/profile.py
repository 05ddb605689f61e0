"""A Profile as rich renderables: runs, time, compute and peak memory by stage, kept tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from omnidrop import format as fmt
from omnidrop.errors import printable
from omnidrop_cli.terminal import layer_charts, sections
from omnidrop_cli.terminal.answer import GAP, WIDE, Layout, side_by_side
from omnidrop_cli.terminal.glyphs import Ink

if TYPE_CHECKING:
    from omnidrop.profiling.result import Profile, RunProfile, StageStat, Timing

INDENT = 2
#: With more runs than this, only the one that keeps least is shown layer by layer.
DETAILED = 2

Cells = list[tuple[str, str]]  # text and style


def report(found: Profile, *, every: bool = False) -> Layout:
    """Return the whole report.

    Parameters
    ----------
    found : Profile
    every : bool
        Show the kept tokens of every run, however many there are: for files.
    """
    return Layout(lambda width, ink: _report(found, every, width, ink))


def _report(found: Profile, every: bool, width: int, ink: Ink) -> Iterator[Text]:
    yield from header(found, width)
    for block in (
        runs(found, width),
        stages(found, width),
        compute(found, width),
        memory(found, width),
    ):
        yield Text()
        yield from block
    shown = found.runs
    if not every and len(shown) > DETAILED:
        shown = tuple(sorted(shown, key=lambda run: run.realised)[:1])
    for run in shown:
        yield Text()
        yield from kept(run, width, ink)


def header(found: Profile, width: int) -> Iterator[Text]:
    """Yield clip, question, model, machine and notices."""
    yield sections.title("OmniDrop profile", width)
    control, machine = found.control, found.machine
    yield from sections.field("clip", sections.clip_line(control.trace), width)
    yield from sections.field("question", found.question, width)
    yield from sections.field("answer", control.answer, width)
    yield from sections.field("model", sections.model_line(control.trace), width)
    threads = machine["threads"]
    text = f"{machine['name']}, {threads} thread{'s' * (threads != 1)}, a large matrix product "
    text += f"reaches {fmt.flops(machine['matmul'])}/s in {machine['dtype']}"
    yield from sections.field("machine", text, width)
    rounds = f"{found.repeats} timed round{'s' * (found.repeats != 1)} after {found.warmup}, runs "
    rounds += "in turns; median (fastest–slowest)"
    yield from sections.field("measured", rounds, width)
    for notice in found.notices:
        yield from sections.field("! notice", notice, width, "bold")


def runs(found: Profile, width: int) -> list[Text]:
    """Return a line for each run: tokens kept, speed, and whether the answer changed."""
    wide = width >= 120
    head = ["run", "kept", "TTFT", "×", "prefill", "×", "ideal ×", "reached"]
    head += ["per token", "KV cache"] if wide else []
    head += ["answer", "KL"]
    rows: list[Cells] = [[(name, "dim") for name in head]]
    for run in found.all:
        prefill, control = run.stage("LLM prefill"), run is found.control
        row: Cells = [(run.label, "bold"), (fmt.share(run.realised, 0), "")]
        row.append((spread(run.ttft) if wide else fmt.duration(run.ttft.median), ""))
        row.append(("" if control else f"{run.ttft_speedup:.2f}", "bold"))
        row.append((_seconds(prefill, wide), ""))
        for value in (prefill.speedup, prefill.predicted) if prefill else (None, None):
            row.append(("" if value is None else f"{value:.2f}", ""))
        achieved = prefill.achieved if prefill else None
        row.append(("" if achieved is None else fmt.share(achieved, 0), "bold"))
        if wide:
            row.append((fmt.duration(run.further.median) if run.further else "–", ""))
            row.append((fmt.size(run.trace.memory.kv_cache), ""))
        row.append(("" if control else "same" if run.same_answer else "other", ""))
        row.append(("" if control else f"{run.kl:.2g}", ""))
        rows.append(row)
    note = (
        "×: speedup over the control, none. ideal ×: ratio of the prefills' FLOPs. reached: the "
        "speedup's share of it. answer: the same tokens or others. KL(unpruned || pruned) of the "
        "first token's distribution, in nats."
    )
    lines = [sections.title("Runs", width), *columns(rows, width), *_other_answers(found, width)]
    return lines + sections.note(note, width)


def _other_answers(found: Profile, width: int) -> Iterator[Text]:
    """Yield a line for each answer that pruning changed: the unpruned one, then the other."""
    usual = _short(found.control.answer)
    for run in found.runs:
        if not run.same_answer:
            other = _short(run.answer)
            text = f"differs with {run.label}: {usual} → {other}"
            if other == usual:
                text += " (the same words in other tokens)"
            yield from sections.field("! answer", text, width, "bold")


def _short(answer: str, most: int = 120) -> str:
    """Return an answer on one line and not too long; an empty one in words."""
    line = " ".join(answer.split())
    return (line if len(line) <= most else line[: most - 1] + "…") or "(empty)"


def stages(found: Profile, width: int) -> list[Text]:
    """Return the time of every stage, a column for each run."""
    names = list(dict.fromkeys(s.name for run in found.all for s in run.stages))
    first = {s.name: s for run in reversed(found.all) for s in run.stages}
    room = max(len(_label(first[name])) for name in names)
    with_range = 24 * len(found.all) + room + INDENT <= width
    cell = 24 if with_range else _cell(found)
    fit = max((width - room - INDENT) // cell, 2)
    lines = [sections.title("Time by stage", width)]
    for part in _parts(found, fit):
        lines.append(_head(part, room, cell))
        for name in names:
            line = Text(" " * INDENT + _label(first[name]).ljust(room))
            for run in part:
                stat = run.stage(name)
                line.append_text(_time(stat.seconds if stat else None, cell, with_range))
            if first[name].within or first[name].overlapped:
                line.stylize("dim")
            lines.append(line)
        for name, pick in (("total, by another clock", "total"), ("first token (TTFT)", "ttft"),
                           ("each further token", "further")):  # fmt: skip
            line = Text(" " * INDENT + name.ljust(room), style="bold")
            for run in part:
                line.append_text(_time(getattr(run, pick), cell, with_range))
            lines.append(line)
    alone = ", ".join(f"{s.name} {spread(s.seconds)}" for s in found.reading)
    note = "(meanwhile): in decoding threads, overlapping the other stages; not part of the total. "
    note += f"Measured alone: {alone}." if alone else ""
    if any(s.overlapped for s in first.values()):
        lines += sections.note(note, width)
    return lines


def compute(found: Profile, width: int) -> list[Text]:
    """Return the FLOPs of each stage by the cost model, and the speed that was measured."""
    peak = float(found.machine["matmul"])
    head = ("stage", "run", "FLOPs", "FLOP/s", "of matmul", "×", "ideal ×", "reached")
    rows: list[Cells] = [[(name, "dim") for name in head]]
    names = [s.name for s in found.control.stages if s.flops]
    for name in names:
        for number, run in enumerate(found.all):
            stat = run.stage(name)
            if stat is None or stat.flops is None or stat.flops_per_second is None:
                continue
            row = [(name if not number else "", ""), (run.label, "dim")]
            row.append((fmt.flops(stat.flops).replace("FLOP", ""), ""))
            row.append((fmt.flops(stat.flops_per_second).replace("FLOP", ""), ""))
            row.append((fmt.share(stat.flops_per_second / peak, 0), ""))
            for value in (stat.speedup, stat.predicted):
                row.append(("" if value is None else f"{value:.2f}", ""))
            row.append(("" if stat.achieved is None else fmt.share(stat.achieved, 0), "bold"))
            rows.append(row)
    note = (
        "FLOP/s: the cost model's FLOPs over measured seconds. of matmul: share of the speed of a "
        "large matrix product on this machine. Decoding is bound by memory bandwidth, not by FLOPs."
    )
    lines = [sections.title("Compute by stage", width), *columns(rows, width, left=2)]
    return lines + sections.note(note, width)


def memory(found: Profile, width: int) -> list[Text]:
    """Return the peak memory while each stage was open."""
    lines = [sections.title("Peak memory by stage", width)]
    names = [s.name for s in found.control.stages if s.host_peak or s.device_peak]
    device = any(s.device_peak is not None for s in found.control.stages)
    if not names:
        return [*lines, Text("  Peak memory is not available on this system.")]
    room, cell = max(map(len, names)), 24 if device else _cell(found)
    for part in _parts(found, max((width - room - INDENT) // cell, 2)):
        lines.append(_head(part, room, cell))
        for name in names:
            line = Text(" " * INDENT + name.ljust(room))
            for run in part:
                stat = run.stage(name)
                text = fmt.size(stat.host_peak) if stat else "–"
                if device and stat and stat.device_peak is not None:
                    text += f" + {fmt.size(stat.device_peak)}"
                line.append(text.rjust(cell))
            lines.append(line)
    what = "the process's resident set" + (" + allocated on the device" if device else "")
    note = f"From a separate run: {what} during the stage, weights and libraries included."
    if not device:
        note += " The device is the host."
    return lines + sections.note(note, width)


def kept(run: RunProfile, width: int, ink: Ink) -> Iterator[Text]:
    """Yield the tokens a run kept, per layer, chunk and modality, as `ask` shows them."""
    trace = run.trace
    yield sections.title(f"Kept by {printable(run.label)}", width)
    rows = layer_charts.layer_bins(trace)
    left = (width - GAP) // 2 if width >= WIDE else width
    right = width - GAP - left if width >= WIDE else width
    parts = [
        [*layer_charts.layers(trace, rows, left, ink), Text(), *sections.shares(trace, left)],
        layer_charts.heatmap(trace, rows, right, ink),
    ]
    if width >= WIDE:
        yield from side_by_side(parts, [left, right])
    else:
        for part in parts:
            yield from part
            yield Text()


def spread(timing: Timing | None) -> str:
    """Return `118 ms (112–130)`: median, fastest and slowest, in one unit where they share it."""
    if timing is None:
        return "–"
    middle, low, high = map(fmt.duration, (timing.median, timing.low, timing.high))
    if low == middle == high:
        return middle
    if low.split(" ", 1)[-1] == high.split(" ", 1)[-1] == middle.split(" ", 1)[-1]:
        low, high = low.split(" ", 1)[0], high.split(" ", 1)[0]
    return f"{middle} ({low}–{high})"


def columns(rows: Sequence[Cells], width: int, left: int = 1) -> list[Text]:
    """Return rows as aligned columns, numbers to the right, closer together where it is narrow.

    Columns that do not fit follow in another table below, with the first `left` ones repeated.
    """
    sizes = [max(len(row[i][0]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for part in _fitting(sizes, width - INDENT, left):
        spare = width - INDENT - sum(sizes[i] for i in part)
        gap = max(1, min(3, spare // max(len(part) - 1, 1)))
        for row in rows:
            line = Text(" " * INDENT)
            for place, i in enumerate(part):
                text, style = row[i]
                line.append(" " * gap if place else "")
                line.append(text.ljust(sizes[i]) if i < left else text.rjust(sizes[i]), style=style)
            lines.append(line)
    return lines


def _fitting(sizes: Sequence[int], room: int, left: int) -> Iterator[list[int]]:
    """Yield columns that fit side by side, the `left` first ones in each part."""
    named, part = list(range(left)), list[int]()
    for i in range(left, len(sizes)):
        if part and sum(sizes[j] + 1 for j in (*named, *part, i)) - 1 > room:
            yield [*named, *part]
            part = []
        part.append(i)
    yield [*named, *part]


def _parts(found: Profile, fit: int) -> Iterator[tuple[RunProfile, ...]]:
    """Yield the runs in groups that fit side by side, the control first in each."""
    step = max(fit - 1, 1)
    for at in range(0, max(len(found.runs), 1), step):
        yield (found.control, *found.runs[at : at + step])


def _cell(found: Profile) -> int:
    """Return how wide a column of numbers is, its head included."""
    return min(max(12, *(len(run.label) + 2 for run in found.all)), 20)


def _head(part: Sequence[RunProfile], room: int, cell: int) -> Text:
    line = Text(" " * (INDENT + room), style="dim")
    for run in part:
        name = run.label if len(run.label) < cell else "…" + run.label[-(cell - 2) :]
        line.append(name.rjust(cell))
    return line


def _label(stage: StageStat) -> str:
    name = f"  {stage.name}" if stage.within else stage.name
    return f"{name} (meanwhile)" if stage.overlapped else name


def _time(timing: Timing | None, cell: int, with_range: bool) -> Text:
    if timing is None:
        return Text("–".rjust(cell))
    if not with_range:
        return Text(fmt.duration(timing.median).rjust(cell))
    middle, _, rest = spread(timing).partition(" (")
    line = Text(middle.rjust(9))
    line.append(f" ({rest}" if rest else "", style="dim")
    line.append(" " * (cell - line.cell_len))
    return line


def _seconds(stage: StageStat | None, wide: bool) -> str:
    if stage is None:
        return "–"
    return spread(stage.seconds) if wide else fmt.duration(stage.seconds.median)


__all__ = ["report", "spread"]
