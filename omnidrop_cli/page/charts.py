"""Charts as inline SVG that stretches with the page; every word in them keeps its size.

Shapes stand in drawings of their own that are stretched to any width, words in drawings without
a view box, placed by percentages. Colours are classes, so that they follow the page's theme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from omnidrop import format as fmt
from omnidrop_cli.page.html import Markup, tag
from omnidrop_cli.terminal.glyphs import STEPS, bins

if TYPE_CHECKING:
    from omnidrop.report.trace import Trace

SHADES = 9
MOST_ROWS, MOST_COLUMNS = 40, 120
#: Pixels between the names of layers, at least.
APART = 16


def bar(value: float, kind: str = "plain") -> Markup:
    """Return a bar of `value`, 0 to 1, on a track."""
    part = min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0
    return tag(
        "svg",
        tag("rect", class_="track", width="100%", height="100%", rx="3"),
        tag("rect", class_=kind, width=f"{100 * part:.2f}%", height="100%", rx="3"),
        class_="bar",
        aria_hidden="true",
    )


def stretched(width: int, height: int, *shapes: Markup, label: str, tall: int) -> Markup:
    """Return shapes on a grid of `width` × `height`, stretched to the page; `tall` in pixels."""
    return tag(
        "svg",
        *shapes,
        viewBox=f"0 0 {width} {height}",
        preserveAspectRatio="none",
        height=tall,
        role="img",
        aria_label=label,
        class_="cells",
    )


def path(kind: str, boxes: Sequence[tuple[float, float, float, float]]) -> Markup | None:
    """Return boxes of one colour (left, top, width, height) as one shape; None without boxes."""
    if not boxes:
        return None
    drawn = "".join(f"M{x:g} {y:g}h{w:g}v{h:g}h{-w:g}z" for x, y, w, h in boxes)
    return tag("path", class_=kind, d=drawn)


def time_axis(start: float, end: float) -> Markup:
    """Return clock times along a span, each under its place."""
    most = 4 if end < 3600 else 2  # hours make long words
    step = next((s for s in STEPS if (end - start) / s <= most), STEPS[-1])
    first = math.ceil(start / step - 1e-9) * step
    words = []
    for i in range(6):
        at = first + i * step
        if at > end + 1e-6:
            break
        place = (at - start) / max(end - start, 1e-9)
        anchor = "start" if place < 0.04 else "end" if place > 0.94 else "middle"
        words.append(tag("text", fmt.clock(at), x=f"{100 * place:.2f}%", y="12",
                         text_anchor=anchor))  # fmt: skip
    return tag("svg", *words, class_="axis", height="16", aria_hidden="true")


def timeline(trace: Trace) -> Markup | None:
    """Return the clip as a line, the moments marked on it; None without moments."""
    if not trace.moments or not trace.chunks:
        return None
    start, end = trace.chunks[0].start, trace.chunks[-1].end
    length = max(end - start, 1e-9)
    marks = [tag("rect", class_="track", width="100%", height="14", rx="3")]
    for moment in trace.moments:
        left = max(0.0, (moment.start - start) / length)
        wide = min(1.0 - left, max((moment.end - moment.start) / length, 0.008))
        marks.append(
            tag("rect", class_="moment", x=f"{100 * left:.2f}%", width=f"{100 * wide:.2f}%",
                height="14", rx="3")
        )  # fmt: skip
    told = ", ".join(fmt.span(m.start, m.end) for m in trace.moments)
    line = tag("svg", *marks, class_="line", height="14", role="img",
               aria_label=f"Moments on the clip from {fmt.span(start, end)}: {told}")  # fmt: skip
    return tag("div", line, time_axis(start, end), class_="timeline")


def _whole_axis() -> Markup:
    """Return the scale under the bars of layers."""
    ends = (tag("text", "0", x="0", y="12"),
            tag("text", "100 %", x="100%", y="12", text_anchor="end"))  # fmt: skip
    return tag("svg", *ends, class_="axis", height="16", aria_hidden="true")


def _mean(values: Sequence[int], row: tuple[int, int]) -> float:
    part = values[row[0] : row[1]]
    return sum(part) / len(part) if part else 0.0


def _name(row: tuple[int, int]) -> str:
    return str(row[0]) if row[1] - row[0] == 1 else f"{row[0]}–{row[1] - 1}"


def kept(trace: Trace) -> Markup | None:
    """Return the share of tokens entering each layer, by time and in all; None without tokens."""
    chunks = trace.chunks
    if not chunks or not trace.av_tokens or not trace.layers:
        return None
    rows, columns = bins(trace.layers, MOST_ROWS), bins(len(chunks), MOST_COLUMNS)
    tall = max(120, min(12 * len(rows), 360))
    shares = [[_kept(trace, row, column) for column in columns] for row in rows]
    top = max((v for line in shares for v in line), default=0.0) or 1.0
    span = (chunks[0].start, chunks[-1].end)
    parts = [
        tag("span", "layer", class_="corner"),
        _heat_legend(top),
        tag("span", tag("span", tag("i", class_="key audio"), "audio"), " ",
            tag("span", tag("i", class_="key video"), "video"), class_="legend"),
        _row_names(rows, tall),
        _heat(shares, top, tall),
        _layer_bars(trace, rows, tall),
    ]  # fmt: skip
    for name, strip in _strips(trace, columns):
        parts += [tag("span", name, class_="corner"), strip, tag("span")]
    parts += [tag("span"), time_axis(*span), _whole_axis()]
    return tag("div", *parts, class_="kept")


def _kept(trace: Trace, row: tuple[int, int], column: tuple[int, int]) -> float:
    part = trace.chunks[column[0] : column[1]]
    whole = sum(c.audio_total + c.video_total for c in part)
    return sum(_mean(c.audio, row) + _mean(c.video, row) for c in part) / whole if whole else 0.0


def _heat_legend(top: float) -> Markup:
    boxes = (tag("i", class_=f"key h{i}") for i in range(1, SHADES + 1))
    return tag("span", "0 % ", *boxes, f" {100 * top:.0f} % kept", class_="legend")


def _heat(shares: list[list[float]], top: float, tall: int) -> Markup:
    by_shade: dict[int, list[tuple[float, float, float, float]]] = {}
    for y, line in enumerate(shares):
        x = 0
        while x < len(line):
            shade = _shade(line[x] / top)
            last = x
            while last + 1 < len(line) and _shade(line[last + 1] / top) == shade:
                last += 1
            if shade:
                by_shade.setdefault(shade, []).append((x, y, last + 1 - x, 1))
            x = last + 1
    drawn = [made for s, boxes in sorted(by_shade.items()) if (made := path(f"h{s}", boxes))]
    empty = tag("rect", class_="track", width="100%", height="100%")
    label = "Share of the tokens of each moment that enter each layer, first layer at the top"
    return stretched(len(shares[0]), len(shares), empty, *drawn, label=label, tall=tall)


def _shade(value: float) -> int:
    return min(SHADES, 1 + int(value * SHADES)) if value > 0 else 0


def _row_names(rows: list[tuple[int, int]], tall: int) -> Markup:
    height = tall / len(rows)
    every = max(1, math.ceil(APART / height))
    words = [
        tag("text", _name(row), x="100%", y=f"{(i + 0.5) * height + 4:.1f}", text_anchor="end")
        for i, row in enumerate(rows)
        if i % every == 0
    ]
    return tag("svg", *words, class_="rows", height=tall, aria_hidden="true")


def _layer_bars(trace: Trace, rows: list[tuple[int, int]], tall: int) -> Markup:
    total = trace.av_tokens
    audio, video = [], []
    for y, row in enumerate(rows):
        first = 100 * _mean(trace.kept_audio, row) / total
        second = 100 * _mean(trace.kept_video, row) / total
        audio.append((0, y + 0.1, first, 0.8))
        video.append((first, y + 0.1, second, 0.8))
    shapes = [tag("rect", class_="track", width="100%", height="100%")]
    shapes += [made for made in (path("audio", audio), path("video", video)) if made]
    label = "Share of all tokens that enter each layer, audio and video"
    return stretched(100, len(rows), *shapes, label=label, tall=tall)


def _strips(trace: Trace, columns: list[tuple[int, int]]) -> list[tuple[str, Markup]]:
    """Return how much of audio and video is kept along the clip, the mean of all layers."""
    found = []
    for kind in ("audio", "video"):
        values = []
        for a, b in columns:
            part = trace.chunks[a:b]
            whole = sum(getattr(c, f"{kind}_total") for c in part) * trace.layers
            values.append(sum(sum(getattr(c, kind)) for c in part) / whole if whole else 0.0)
        if not any(values):
            continue
        top = max(values)
        boxes = [(x, 1 - v / top, 1, v / top) for x, v in enumerate(values) if v > 0]
        track = tag("rect", class_="track", width="100%", height="100%")
        shapes = [made for made in (track, path(kind, boxes)) if made]
        label = f"Share of the {kind} tokens kept along the clip, {fmt.share(top)} at most"
        found.append((kind, stretched(len(columns), 1, *shapes, label=label, tall=22)))
    return found


__all__ = ["bar", "kept", "time_axis", "timeline"]
