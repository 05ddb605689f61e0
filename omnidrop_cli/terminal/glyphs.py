"""Bars, heatmap cells and strips as rich Text, in colour or in glyphs alone.

Each function returns lines no wider than asked for, so that sections fit side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from omnidrop.format import clock

if TYPE_CHECKING:
    from rich.console import Console

AUDIO, VIDEO, RELEVANCE = "#e69f00", "#56b4e9", "#cc79a7"
PLAIN = "#8a93a6"
TRACK = "#3a4050"
EIGHTHS = " ▏▎▍▌▋▊▉"
LEVELS = "▁▂▃▄▅▆▇█"
RAMP = "·░▒▓█"
STOPS = ((46, 36, 92), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
#: The same ramp in a palette of 256 colours: indices of rising lightness, since the nearest ones to
#: `STOPS` repeat and turn grey.
NUMBERED_STOPS = (53, 55, 25, 30, 36, 77, 185, 227)
#: Each colour in a palette of 256, and among the 16 that a terminal's theme sets.
NUMBERED = {
    AUDIO: "color(214)",
    VIDEO: "color(74)",
    RELEVANCE: "color(175)",
    PLAIN: "color(245)",
    TRACK: "color(237)",
}
NAMED = {AUDIO: "yellow", VIDEO: "cyan", RELEVANCE: "magenta", PLAIN: "", TRACK: ""}
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
    numbered : bool
        Of those, only a palette of 256.
    """

    colour: bool
    shades: bool
    numbered: bool = False

    @classmethod
    def of(cls, console: Console) -> Ink:
        """Return what a console shows."""
        system = None if console.no_color else console.color_system
        return cls(
            colour=system is not None,
            shades=system in ("256", "truecolor"),
            numbered=system == "256",
        )

    def style(self, colour: str, ground: str = "") -> str:
        """Return `colour` (on `ground`) as the console has it, or no style at all."""
        if not self.colour:
            return ""
        known = NUMBERED if self.numbered else {} if self.shades else NAMED
        parts = [known.get(colour, colour), known.get(ground, ground)]
        return " on ".join(parts) if all(parts) else parts[0]

    def shade(self, value: float) -> str:
        """Return the colour of `value` (0 to 1), dark to bright; for consoles with shades."""
        if not self.numbered:
            return shade(value)
        place = int(min(max(value, 0.0), 1.0) * len(NUMBERED_STOPS))
        return f"color({NUMBERED_STOPS[min(place, len(NUMBERED_STOPS) - 1)]})"


def bar(value: float, width: int, ink: Ink, colour: str = PLAIN, *, track: bool = False) -> Text:
    """Return a bar of `value` (0 to 1) of `width` cells, in eighths of a cell.

    With a track, the rest up to 1 is drawn too.
    """
    value = min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0
    eighths = round(value * width * 8)
    if value > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, 8)
    text = "█" * full + (EIGHTHS[rest] if rest else "")
    if not track:
        return Text(text.ljust(width), style=ink.style(colour))
    if not ink.shades:
        return Text(text + "░" * (width - len(text)), style=ink.style(colour))
    return Text(text.ljust(width), style=ink.style(colour, TRACK))


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
    last = max(last, first + (video > 0))
    text = Text()
    full, rest = divmod(first, 8)
    text.append("█" * full, style=ink.style(AUDIO))
    column = full
    if rest and last >= 8 * (full + 1):
        text.append(EIGHTHS[rest], style=ink.style(AUDIO, VIDEO))
        column += 1
    elif rest:  # both end in this cell, which can show one of them: the larger
        more = AUDIO if rest >= last - first else VIDEO
        text.append(EIGHTHS[last - 8 * full], style=ink.style(more))
        column += 1
    if last > 8 * column:
        full, rest = divmod(last - 8 * column, 8)
        text.append("█" * full + (EIGHTHS[rest] if rest else ""), style=ink.style(VIDEO))
        column += full + (1 if rest else 0)
    text.append(" " * (width - column))
    text.truncate(width)
    return text


def bins(count: int, most: int) -> list[tuple[int, int]]:
    """Return at most `most` half-open ranges that cover `count` items, of nearly equal size."""
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
        return Text(" " * width, style=f"on {ink.shade(value)}")
    glyph = RAMP[min(int(value * len(RAMP)), len(RAMP) - 1)]
    return Text(glyph * width, style=ink.style(VIDEO))


def heat_legend(top: float, ink: Ink) -> Text:
    """Return a legend like `0 % ▁▂▃ 62 %`, drawn with the cells of the heatmap."""
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


def time_axis(spans: Sequence[tuple[float, float]], cell: int, width: int) -> list[Text]:
    """Return a row of ticks and a row of clock times under columns.

    Parameters
    ----------
    spans : sequence of (start, end)
        Seconds that each column covers.
    cell : int
        Cells per column.
    width : int
        Cells of each row returned.
    """
    if not spans:
        return []
    begin, end = spans[0][0], spans[-1][1]
    used = len(spans) * cell
    room = len(clock(end)) + 3
    step = next((s for s in STEPS if s * used >= room * max(end - begin, 1e-6)), STEPS[-1])
    ticks, labels = [" "] * width, [" "] * width
    moment = math.ceil(begin / step - 1e-9) * step
    while moment <= end + 1e-6:
        column = min(int(_place(moment, spans) * cell + 1e-6), used - 1)
        label = clock(moment)
        left = max(min(column, width - len(label)), 0)
        if all(c == " " for c in labels[max(left - 1, 0) : left + len(label) + 1]):
            ticks[column] = "╵"
            labels[left : left + len(label)] = label
        moment += step
    return [Text("".join(row)[:width].rstrip(), style="dim") for row in (ticks, labels)]


def _place(moment: float, spans: Sequence[tuple[float, float]]) -> float:
    """Return where a time lies, in columns."""
    for i, (start, end) in enumerate(spans):
        if moment < end:
            return i + max(moment - start, 0.0) / max(end - start, 1e-9)
    return float(len(spans))
