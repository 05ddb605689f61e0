"""The parts of a page below an answer: kept tokens, costs, and settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from omnidrop import format as fmt
from omnidrop_cli.page.charts import bar
from omnidrop_cli.page.charts import kept as kept_chart
from omnidrop_cli.page.html import Markup, folded, join, table, tag
from omnidrop_cli.terminal.glyphs import bins
from omnidrop_cli.terminal.sections import chosen_by

if TYPE_CHECKING:
    from omnidrop.report.trace import Answer, Stage, Trace


#: Rows of the table by part of the clip; of a long clip, several parts are one row.
MOST_ROWS = 200


def facts(rows: Iterable[tuple[str, object]]) -> Markup:
    """Return names and values, side by side where there is room."""
    made = (tag("div", tag("dt", name), tag("dd", value)) for name, value in rows)
    return tag("dl", *made, class_="facts")


def used(trace: Trace) -> str:
    """Return what of the clip the model was given, in a line; empty if that is not known."""
    if not trace.av_tokens:
        return "nothing of the clip"
    found, given = trace.used, []
    if trace.video_tokens and found.frames:
        frames = f"{fmt.number(found.frames)} frame{'s' * (found.frames != 1)}"
        given.append(f"{frames} of {fmt.duration(found.video_seconds)} of video")
    elif trace.video_tokens:
        count = trace.clip.get("frames")
        given.append(f"{fmt.number(count)} frames" if count else "video")
    else:
        given.append("no video")
    if trace.audio_tokens and found.audio_seconds:
        given.append(f"{fmt.duration(found.audio_seconds)} of audio")
    else:
        given.append("audio" if trace.audio_tokens else "no audio")
    return ", ".join(given)


def summary(trace: Trace) -> Markup:
    """Return the facts that belong to every answer: what was used, kept, and how long it took."""
    rows: list[tuple[str, object]] = [("Seen and heard", used(trace))]
    if trace.av_tokens:
        count = f"{fmt.number(trace.av_tokens)} tokens"
        every = sum(trace.kept_per_layer) >= trace.av_tokens * trace.layers
        kept = f"all {count}" if every else f"{fmt.share(trace.realised_budget)} of {count}"
        rows += [("Kept", kept), ("Method", _method(trace))]
    rows.append(("First token after", fmt.duration(trace.ttft)))
    name = str(trace.model.get("name", "?"))
    small = tag("small", f"{trace.layers} layers, {trace.model.get('device', '?')}")
    rows.append(("Model", join((name, " ", small))))
    return facts(rows)


def _method(trace: Trace) -> Markup:
    method = trace.method
    name = " ".join(str(method[key]) for key in ("name", "preset") if method.get(key)) or "?"
    asked = "" if trace.asked_budget >= 1 else f", {fmt.share(trace.asked_budget, 0)} asked"
    chosen = chosen_by(trace)
    small = tag("small", chosen) if chosen else ""
    return join((f"{name}{asked}", " ", small))


def tokens(trace: Trace, heading: Markup) -> Markup | None:
    """Return what was kept of the clip, by layer and time; None without tokens."""
    chart = kept_chart(trace)
    if chart is None:
        return None
    lead = (
        "Each row is a layer of the model, the first at the top, and each column a part of the "
        "clip. The stronger the colour, the more of that part's tokens enter the layer. The bars "
        "show the share of all tokens."
    )
    return join(
        (
            heading,
            tag("p", lead, class_="muted small"),
            tag("figure", chart),
            folded("The numbers by layer", _by_layer(trace)),
            folded("The numbers by part of the clip", _by_chunk(trace)),
        )
    )


def _by_layer(trace: Trace) -> Markup:
    def row(name: str, audio: int, video: int) -> tuple[object, ...]:
        share = fmt.share((audio + video) / trace.av_tokens)
        return name, fmt.number(audio), fmt.number(video), share

    rows = [row("prompt", trace.audio_tokens, trace.video_tokens)]
    pairs = zip(trace.kept_audio, trace.kept_video, strict=True)
    rows += [row(str(layer), audio, video) for layer, (audio, video) in enumerate(pairs)]
    head = ("layer", "audio tokens", "video tokens", "kept")
    return table(head, rows, caption="Tokens entering each layer")


def _by_chunk(trace: Trace) -> Markup:
    measured = any(c.relevance is not None for c in trace.chunks)
    rows = []
    for first, end in bins(len(trace.chunks), MOST_ROWS):
        part = trace.chunks[first:end]
        row = [fmt.span(part[0].start, part[-1].end)]
        for kind in ("audio", "video"):
            total = sum(getattr(c, f"{kind}_total") for c in part)
            by_layer = [
                sum(counts) for counts in zip(*(getattr(c, kind) for c in part), strict=True)
            ]
            mean = sum(by_layer) / (total * len(by_layer)) if total and by_layer else None
            last = fmt.number(by_layer[-1]) if by_layer else "–"
            row += [fmt.number(total), fmt.share(mean), last]
        rows.append(row + ([fmt.share(sum(c.relevance or 0.0 for c in part))] if measured else []))
    head = ["time", "audio tokens", "kept on average", "in the last layer"]
    head += ["video tokens", "kept on average", "in the last layer"]
    head += ["attention of the question"] if measured else []
    return table(head, rows, caption="Tokens by part of the clip")


def costs(trace: Trace) -> Markup:
    """Return time by stage, compute and memory."""
    memory = trace.memory
    rows: list[tuple[str, object]] = [("First token after (TTFT)", fmt.duration(trace.ttft))]
    if trace.tokens_per_second:
        rows.append(("Further tokens", f"{trace.tokens_per_second:.1f} per second"))
    for name, show, part, whole in (
        ("Prefill", fmt.flops, trace.flops_prefill, trace.flops_prefill_unpruned),
        ("KV cache", fmt.size, memory.kv_cache, memory.kv_cache_unpruned),
    ):
        if whole:
            of = tag("small", f"of {show(whole)} ({fmt.share(part / whole, 0)})")
            rows.append((name, join((show(part), " ", of))))
    rows.append(("Peak memory, host", fmt.size(memory.host)))
    if memory.device is not None:
        rows.append(("Peak memory, device", fmt.size(memory.device)))
    if memory.weights:
        mapped = f"{fmt.size(memory.mapped)} mapped from the files" if memory.mapped else ""
        rows.append(("Weights in it", join((fmt.size(memory.weights), " ", tag("small", mapped)))))
    text, audio, video = trace.text_tokens, trace.audio_tokens, trace.video_tokens
    prompt = f"{fmt.number(text)} text, {fmt.number(audio)} audio, {fmt.number(video)} video"
    rows.append(("Tokens of the prompt", prompt))
    return join((tag("h3", "What it cost"), facts(rows), _stages(trace)))


def _stages(trace: Trace) -> Markup:
    longest = max((s.seconds for s in trace.stages), default=0.0) or 1.0
    rows = []
    for depth, stage in nested(trace.stages):
        name = tag("span", stage.name, class_=f"deep{min(depth, 3)}")
        if stage.reused or stage.overlapped:
            last: object = "reused" if stage.reused else "meanwhile"
        else:
            last = bar(stage.seconds / longest)
        rows.append((name, fmt.duration(stage.seconds), last))
    return table(("stage", "time", ""), rows, caption="Time by stage", kind="numbers stages")


def nested(stages: tuple[Stage, ...]) -> Iterator[tuple[int, Stage]]:
    """Yield stages with their depth, parts after their whole."""
    names = {stage.name for stage in stages}

    def place(parent: str | None, depth: int, seen: frozenset[str]) -> Iterator[tuple[int, Stage]]:
        for stage in stages:
            within = stage.within if stage.within in names else None
            if within == parent and stage.name not in seen:
                yield depth, stage
                yield from place(stage.name, depth + 1, seen | {stage.name})

    return place(None, 0, frozenset())


def settings(answer: Answer) -> Markup:
    """Return every setting, folded away."""
    trace = answer.trace
    groups: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("Method", trace.method),
        ("Model", trace.model),
        ("Clip", trace.clip),
        ("Answer", {k: v for k, v in trace.settings.items() if k != "question"}),
    )
    parts = [_values(name, values) for name, values in groups]
    count = len(answer.token_ids)
    ended = f"{answer.stop}{f' after {count} token' + 's' * (count != 1) if count else ''}"
    run = {"stopped": ended} | ({"decoding": trace.decode_loop} if trace.decode_loop else {})
    return folded("Settings", *parts, _values("Run", run))


def _values(name: str, values: Mapping[str, Any]) -> Markup:
    rows = [(key, fmt.setting(value)) for key, value in values.items()]
    return table(("setting", "value"), rows, caption=name, kind="")


__all__ = ["costs", "facts", "nested", "settings", "summary", "tokens", "used"]
