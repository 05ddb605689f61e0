"""The sections of a report: each turns part of a Trace into lines of a given width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from omnidrop import format as fmt
from omnidrop.errors import printable
from omnidrop.stages import StageName
from omnidrop_cli.terminal.glyphs import RELEVANCE, Ink, bar

if TYPE_CHECKING:
    from omnidrop.report.trace import Answer, Stage, Trace

LABEL = 10
INDENT = 2
#: The words of the report that are not everyday ones.
WORDS = {
    "token": "a piece of audio, video or text",
    "layer": "a step of the model",
    "budget": "share of audio and video tokens kept, averaged over layers",
    "prefill": "reading the prompt, up to the first token of the answer",
    "KV cache": "what the model remembers of each token",
    "FLOP": "one arithmetic operation",
}


def title(text: str, width: int) -> Text:
    """Return a heading with a rule after it."""
    line = Text(text, style="bold")
    line.append(" " + "─" * max(width - len(text) - 1, 0), style="dim")
    return line


def hanging(head: str, text: Text, width: int, style: str = "") -> list[Text]:
    """Return text wrapped in a column of its own, `head` before its first line."""
    lines = text.wrap(Console(), max(width - len(head), 8))
    for line in lines:
        line.rstrip()
    heads = [head, *[" " * len(head)] * (len(lines) - 1)]
    return [Text().append(h, style).append_text(line) for h, line in zip(heads, lines, strict=True)]


def note(text: str, width: int) -> list[Text]:
    """Return a remark below a table."""
    return hanging(" " * INDENT, Text(text, style="dim"), width)


def field(name: str, value: str, width: int, style: str = "") -> list[Text]:
    """Return `  name    value`, the value wrapped in its own column."""
    head = " " * INDENT + (name.ljust(LABEL) if name else "")
    return hanging(head, Text(printable(" ".join(value.split())), style=style), width, "dim")


def listed(
    name: str, parts: Sequence[str], width: int, separator: str = ", ", style: str = ""
) -> list[Text]:
    """Return `  name    part, part`, broken between parts only, as long as each fits a line."""
    room, rows = width - INDENT - LABEL, [""]
    for i, part in enumerate(parts):
        text = printable(" ".join(part.split())) + (separator if i + 1 < len(parts) else "")
        if rows[-1] and cell_len((rows[-1] + text).rstrip()) > room:
            rows.append("")
        rows[-1] += text
    heads = [name, *[""] * (len(rows) - 1)]
    return [
        line
        for head, row in zip(heads, rows, strict=True)
        for line in hanging(
            " " * INDENT + head.ljust(LABEL), Text(row.rstrip(), style=style), width, "dim"
        )
    ]


def header(answer: Answer, with_answer: bool, width: int) -> list[Text]:
    """Return clip, question, model, method and notices."""
    trace = answer.trace
    lines = [title("OmniDrop", width)]
    lines += field("clip", clip_line(trace), width)
    question = answer.question or str(trace.settings.get("question", ""))
    lines += field("question", question, width)
    if with_answer:
        lines += field("answer", answer.text, width, "bold")
    lines += field("model", model_line(trace), width)
    name = str(trace.method.get("name", "?"))
    preset = trace.method.get("preset")
    asked = f"{name}{f' {preset}' if preset else ''} · budget {_budget(trace.asked_budget)} asked"
    lines += field("method", f"{asked} → {_budget(trace.realised_budget)} realised", width, "bold")
    if chosen := chosen_by(trace):
        lines += field("chosen by", chosen, width)
    for notice in trace.notices:
        lines += field("! notice", notice, width, "bold")
    return lines


def chosen_by(trace: Trace) -> str:
    """Return where the method comes from, if nobody named one; else nothing."""
    default = trace.method.get("default") or {}
    if not default.get("source"):
        return ""
    usual, name = default.get("method"), trace.method.get("name")
    if name == "none" and usual not in (None, "none"):
        share = fmt.share(float(default.get("budget", 1.0)), 0)
        return f"the model's default, which is {usual} at {share} where that saves enough time"
    return f"the model's default: {default['source']}"


def _budget(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if value else "0"


def clip_line(trace: Trace) -> str:
    """Return path, span and sampling of the clip."""
    clip = trace.clip
    parts = [printable(clip.get("path") or "ready features")]
    if trace.chunks:
        first, last = trace.chunks[0].start, trace.chunks[-1].end
        parts.append(fmt.span(first, last))
        duration = clip.get("duration")
        if isinstance(duration, (int, float)) and last - first < duration - 0.5:
            parts[-1] += f" of {fmt.clock(duration)}"
    if trace.video_tokens:
        frames, size, fps = clip.get("frames"), clip.get("size"), clip.get("fps")
        if frames:
            height, width = size if isinstance(size, (list, tuple)) else (None, None)
            parts.append(f"{frames} frames" + (f" of {width}×{height}" if width else ""))
        if isinstance(fps, (int, float)):
            parts.append(f"{fps:.4g} fps")
    else:
        parts.append("no video")
    if not trace.audio_tokens:
        parts.append("no audio")
    return " · ".join(parts)


def model_line(trace: Trace) -> str:
    """Return name, size and precision of the model."""
    model = trace.model
    parts = [str(model.get("name", "?"))]
    if model.get("demo"):
        parts[0] += " (demo)" if parts[0] != "demo" else " model"
    parts += [
        fmt.parameters(model.get("parameters")),
        f"{trace.layers} layers",
        str(model.get("quantization") or ""),
        *(str(model.get(name) or "") for name in ("dtype", "attention", "device")),
    ]
    return " · ".join(part for part in parts if part)


def choices(answer: Answer, width: int, ink: Ink) -> list[Text]:
    """Return each choice with its probability."""
    lines = [title("Choices", width)]
    room = min(max(len(c.text) for c in answer.choices), max(width // 3, 10))
    for choice in answer.choices:
        line = Text(" " * INDENT)
        name = Text(printable(choice.text))
        name.truncate(room, overflow="ellipsis", pad=True)
        line.append_text(name)
        line.append(f" {fmt.share(choice.probability):>8}  ")
        space = min(max(width - line.cell_len, 4), 40)
        line.append_text(bar(choice.probability, space, ink, track=True))
        lines.append(line)
    return lines


def shares(trace: Trace, width: int) -> list[Text]:
    """Return the shares of audio and video kept: at entry, at the last layer, and on average."""
    if not trace.av_tokens or not trace.layers:
        return []
    lines = [title("Audio and video", width)]
    columns = ("prompt", "first layer", "last layer", "mean")
    cells = [max(len(c) + 2, 9) for c in columns]
    head = Text(" " * (INDENT + 7), style="dim")
    for name, cell in zip(columns, cells, strict=True):
        head.append(f"{name:>{cell}}")
    lines.append(head)
    for name, total, kept in (
        ("audio", trace.audio_tokens, trace.kept_audio),
        ("video", trace.video_tokens, trace.kept_video),
        ("both", trace.av_tokens, trace.kept_per_layer),
    ):
        line = Text(" " * INDENT)
        line.append(f"{name:<7}", style="dim")
        values = [fmt.number(total)]
        for part in (kept[0], kept[-1], sum(kept) / len(kept)):
            values.append(fmt.share(part / total) if total else "–")
        for value, cell in zip(values, cells, strict=True):
            line.append(f"{value:>{cell}}")
        lines.append(line)
    line = Text(" " * INDENT)
    line.append(f"{'text':<7}", style="dim")
    line.append(f"{fmt.number(trace.text_tokens):>{cells[0]}}")
    line.append("  always kept", style="dim")
    return [*lines, line]


def moments(answer: Answer, width: int, ink: Ink) -> list[Text]:
    """Return the moments that the answer came from, as far as they are known."""
    found = answer.trace.moments
    if not found:
        return []
    lines = [title("Moments that the answer came from", width)]
    room = max(len(fmt.span(m.start, m.end)) for m in found)
    for moment in found:
        line = Text(" " * INDENT)
        line.append(f"{fmt.span(moment.start, moment.end):<{room}}")
        line.append(f"{fmt.share(moment.share):>9}  ")
        space = max(width - line.cell_len, 4)
        line.append_text(bar(moment.share, space, ink, RELEVANCE, track=True))
        lines.append(line)
    for out in answer.left_out:
        span = fmt.span(out.moment.start, out.moment.end)
        change = "another answer" if out.changed else "the same answer"
        odds = f"{fmt.share(out.whole)} with it and {fmt.share(out.probability)} without"
        text = f"without {span}: {change}, {printable(' '.join(out.text.split())) or 'empty'}"
        lines += note(f"{text} (the first answer's probability: {odds})", width)
    return lines


def _nested(stages: tuple[Stage, ...]) -> list[tuple[int, Stage]]:
    """Return stages with their depth, parts after their whole."""
    names = {s.name for s in stages}
    placed: list[tuple[int, Stage]] = []

    def place(parent: str | None, depth: int, seen: frozenset[str]) -> None:
        for stage in stages:
            within = stage.within if stage.within in names else None
            if within == parent and stage.name not in seen:
                placed.append((depth, stage))
                place(stage.name, depth + 1, seen | {stage.name})

    place(None, 0, frozenset())
    return placed


def stages(trace: Trace, width: int, ink: Ink) -> list[Text]:
    """Return the time of each stage, parts indented under their whole."""
    lines = [title("Time", width)]
    placed = _nested(trace.stages)
    longest = max((s.seconds for _, s in placed), default=0.0) or 1.0
    room = max([len(s.name) + 2 * d for d, s in placed] + [len("tokens per second")])
    room = min(room, max(width // 2, 12))
    if trace.load_seconds:
        line = Text(" " * INDENT + StageName.LOAD.ljust(room))
        line.append(f"{fmt.duration(trace.load_seconds):>11}  ")
        when = "earlier, by omnidrop serve" if trace.warm else "once, before the first question"
        line.append(when, style="dim")
        line.truncate(width)
        lines.append(line)
    for depth, stage in placed:
        line = Text(" " * INDENT)
        name = Text("  " * depth + stage.name)
        aside = getattr(stage, "overlapped", False)
        name.truncate(room, overflow="ellipsis", pad=True)
        line.append_text(name)
        line.append(f"{fmt.duration(stage.seconds):>11}  ")
        if stage.reused:
            line.append("reused", style="dim")
        elif aside:
            line.append("meanwhile", style="dim")
        else:
            line.append_text(bar(stage.seconds / longest, max(width - line.cell_len, 4), ink))
        if depth or aside:
            line.stylize("dim", 0, INDENT + room + 11)
        lines.append(line)
    line = Text(" " * INDENT)
    line.append("first token after".ljust(room))
    line.append(f"{fmt.duration(trace.ttft):>11}", style="bold")
    lines.append(line)
    if trace.tokens_per_second:
        line = Text(" " * INDENT + "tokens per second".ljust(room))
        line.append(f"{trace.tokens_per_second:.1f}".rjust(9), style="bold")
        lines.append(line)
    return lines


def cost(trace: Trace, width: int, ink: Ink) -> list[Text]:
    """Return compute and memory, compared with keeping every token."""
    lines = [title("Cost against keeping every token", width)]
    memory = trace.memory
    rows = (
        ("prefill", fmt.flops, trace.flops_prefill, trace.flops_prefill_unpruned),
        ("KV cache", fmt.size, memory.kv_cache, memory.kv_cache_unpruned),
    )
    for name, show, part, whole in rows:
        line = Text(" " * INDENT)
        line.append(name.ljust(LABEL), style="dim")
        line.append(f"{show(part):>11} of {show(whole):>11}")
        line.append(f"{fmt.share(part / whole) if whole else '–':>9}  ", style="bold")
        if whole and width - line.cell_len >= 4:
            line.append_text(bar(part / whole, width - line.cell_len, ink, track=True))
        lines.append(line)
    line = Text(" " * INDENT)
    line.append("peak".ljust(LABEL), style="dim")
    line.append(f"{fmt.size(memory.host):>11} host")
    if memory.device is not None:
        line.append(f", {fmt.size(memory.device)} device")
    if memory.weights:
        mapped = f", {fmt.size(memory.mapped)} mapped" if memory.mapped else ""
        line.append(f"  weights {fmt.size(memory.weights)}{mapped}", style="dim")
    return [*lines, line]


def settings(answer: Answer, width: int) -> list[Text]:
    """Return every setting, wrapped."""
    trace = answer.trace
    lines = [title("Settings", width)]
    groups = (
        ("method", trace.method, {"name"}),
        ("model", trace.model, {"name"}),
        ("clip", trace.clip, {"path"}),
        ("answer", trace.settings, {"question", "earlier"}),
    )
    for name, values, shown in groups:
        parts = [f"{k} {fmt.setting(v)}" for k, v in values.items() if k not in shown]
        lines += field(name, " · ".join(parts) or "–", width)
    count = len(answer.token_ids)
    after = f" after {count} token{'s' if count > 1 else ''}" if count else ""
    lines += field("stopped", answer.stop + after, width)
    if trace.decode_loop:
        lines += field("decoding", trace.decode_loop, width)
    return lines


def words(width: int) -> list[Text]:
    """Return what the words of the report mean."""
    return note("; ".join(f"{word}: {meaning}" for word, meaning in WORDS.items()) + ".", width)
