"""Bars, a heatmap and strips as lines of rich Text, in colour or in glyphs alone.

Each function returns lines no wider than it was told, so that blocks can stand side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from omnidrop_cli.words import clock

AUDIO, VIDEO, RELEVANCE = "#e69f00", "#56b4e9", "#cc79a7"
PLAIN = "#8a93a6"
EIGHTHS = " ▏▎▍▌▋▊▉"
LEVELS = "▁▂▃▄▅▆▇█"
RAMP = "·░▒▓█"
STOPS = ((46, 36, 92), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 36000)


@dataclass(frozen=True)
class Ink:
    """What the console can show.

    Attributes
    ----------
    colour : bool
        Two colours tell audio from video; otherwise two glyphs.
    shades : bool
        At least 256 colours, enough for a heatmap without glyphs.
    """

    colour: bool
    shades: bool

    def style(self, colour: str) -> str:
        """Return `colour`, or no style at all."""
        return colour if self.colour else ""


def bar(value: float, width: int, ink: Ink, colour: str = PLAIN, glyph: str = "█") -> Text:
    """Return a bar of `value` (0 to 1) of `width` cells, in eighths of a cell."""
    value = min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0
    eighths = round(value * width * 8)
    if value > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, 8)
    text = glyph * full + (EIGHTHS[rest] if rest and glyph == "█" else "")
    return Text(text.ljust(width), style=ink.style(colour))


def stacked(audio: float, video: float, width: int, ink: Ink) -> Text:
    """Return one bar of two parts, audio first; shares of the whole width."""
    ends = [min(max(v, 0.0), 1.0) for v in (audio, audio + video)]
    if not ink.colour:
        first, last = (round(e * width) for e in ends)
        if audio > 0:
            first = max(first, 1)
        if video > 0:
            last = max(last, first + 1)
        return Text(("█" * first + "░" * (last - first)).ljust(width)[:width])
    first, last = (round(e * width * 8) for e in ends)
    if audio > 0:
        first = max(first, 1)
    if video > 0:
        last = max(last, first + 1)
    text = Text()
    a_full, a_rest = divmod(first, 8)
    text.append("█" * a_full, style=AUDIO)
    column = a_full
    if a_rest:
        behind = f" on {VIDEO}" if last >= (a_full + 1) * 8 else ""
        text.append(EIGHTHS[a_rest], style=AUDIO + behind)
        column += 1
    v_full, v_rest = divmod(last, 8)
    if v_full > column:
        text.append("█" * (v_full - column), style=VIDEO)
        column = v_full
    if v_rest and v_full >= column:
        text.append(EIGHTHS[v_rest], style=VIDEO)
        column += 1
    text.append(" " * (width - column))
    text.truncate(width)
    return text


def bins(count: int, most: int) -> list[tuple[int, int]]:
    """Return at most `most` half-open ranges that cover `count` things, all of nearly one size."""
    if count <= most:
        return [(i, i + 1) for i in range(count)]
    size = math.ceil(count / max(most, 1))
    return [(i, min(i + size, count)) for i in range(0, count, size)]


def shade(value: float) -> str:
    """Return the colour of `value` (0 to 1), dark to bright."""
    at = min(max(value, 0.0), 1.0) * (len(STOPS) - 1)
    low = min(int(at), len(STOPS) - 2)
    mixed = (
        round(a + (b - a) * (at - low)) for a, b in zip(STOPS[low], STOPS[low + 1], strict=True)
    )
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def heat_cell(value: float, width: int, ink: Ink) -> Text:
    """Return one cell of the heatmap; `value` 0 to 1, blank only when it is exactly 0."""
    if value <= 0 or not math.isfinite(value):
        return Text(" " * width)
    if ink.shades:
        return Text(" " * width, style=f"on {shade(value)}")
    glyph = RAMP[min(int(value * len(RAMP)), len(RAMP) - 1)]
    return Text(glyph * width, style=ink.style(VIDEO))


def heat_legend(top: float, ink: Ink) -> Text:
    """Return `0 % ▁▂▃ 62 %`, in what the cells are made of."""
    text = Text("0 % ", style="dim")
    for i in range(10):
        text.append_text(heat_cell((i + 0.5) / 10, 1, ink))
    text.append(f" {100 * top:.0f} %", style="dim")
    return text


def strip(values: Sequence[float], cell: int, top: float, ink: Ink, colour: str) -> Text:
    """Return one row of columns of eight heights; blank for 0."""
    text = Text(style=ink.style(colour))
    for value in values:
        if value <= 0 or top <= 0 or not math.isfinite(value):
            text.append(" " * cell)
        else:
            text.append(LEVELS[min(int(value / top * 8), 7)] * cell)
    return text


def time_axis(starts: Sequence[float], end: float, cell: int, width: int) -> list[Text]:
    """Return a row of ticks and a row of clock times under columns that begin at `starts`."""
    if not starts:
        return []
    used = len(starts) * cell
    seconds_per_column = max(end - starts[0], 1e-6) / max(used, 1)
    room = len(clock(end)) + 3
    step = next((s for s in STEPS if s / seconds_per_column >= room), STEPS[-1])
    ticks, labels = [" "] * width, [" "] * width
    moment = math.ceil(starts[0] / step - 1e-9) * step
    while moment <= end + 1e-6:
        at = next((i for i, s in enumerate(starts) if s >= moment - 1e-3), None)
        column = used - 1 if at is None else at * cell
        label = clock(moment)
        left = min(column, max(width - len(label), 0))
        if all(c == " " for c in labels[max(left - 1, 0) : left + len(label) + 1]):
            ticks[column] = "╵"
            labels[left : left + len(label)] = label
        moment += step
    return [Text("".join(row)[:width], style="dim") for row in (ticks, labels)]
