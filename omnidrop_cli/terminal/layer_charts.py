"""The two charts over layers: tokens entering each, and where in the clip they are."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.text import Text

from omnidrop import format as fmt
from omnidrop_cli.terminal.glyphs import (
    AUDIO,
    RELEVANCE,
    VIDEO,
    Ink,
    bins,
    heat_cell,
    heat_legend,
    stacked,
    strip,
    time_axis,
)
from omnidrop_cli.terminal.sections import INDENT, title

if TYPE_CHECKING:
    from omnidrop.report.trace import Trace

MOST_ROWS = 40


def layer_bins(trace: Trace) -> list[tuple[int, int]]:
    """Return the ranges of layers that share a row, in both the bars and the heatmap.

    Neighbours that hold the same tokens are one row, and so are more if there are too many.
    """
    whole = zip(trace.kept_audio, trace.kept_video, strict=True)
    parts = zip(*(zip(c.audio, c.video, strict=True) for c in trace.chunks), strict=True)
    held = list(zip(whole, parts, strict=True)) if trace.chunks else list(whole)
    rows: list[tuple[int, int]] = []
    for _, run in groupby(range(trace.layers), key=held.__getitem__):
        layers = list(run)
        rows.append((layers[0], layers[-1] + 1))
    return rows if len(rows) <= MOST_ROWS else bins(trace.layers, MOST_ROWS)


def _row_name(row: tuple[int, int]) -> str:
    first, last = row[0], row[1] - 1
    return str(first) if first == last else f"{first}–{last}"


def _mean(values: Any, row: tuple[int, int]) -> float:
    part = values[row[0] : row[1]]
    return sum(part) / len(part) if part else 0.0


def layers(trace: Trace, rows: list[tuple[int, int]], width: int, ink: Ink) -> list[Text]:
    """Return tokens entering each layer, with bars of audio and video."""
    total = trace.av_tokens
    lines = [title("Tokens entering each layer", width)]
    if not total:
        return [*lines, Text("  The prompt holds no audio or video tokens.")]
    room = max(len(fmt.number(total)), 5) + 2
    head = Text()
    names = f"{'layer ':>{INDENT + 7}}{'audio':>{room}}{'video':>{room}}{'kept':>9}  "
    head.append(names, style="dim")
    space = max(width - head.cell_len, 4)
    legend = Text()
    legend.append("■" if ink.colour else "██", style=ink.style(AUDIO)).append(" audio  ", "dim")
    legend.append("■" if ink.colour else "░░", style=ink.style(VIDEO)).append(" video", "dim")
    if legend.cell_len <= space:
        head.append_text(legend)
    lines.append(head)
    table: list[tuple[str, float, float]]
    table = [("prompt", trace.audio_tokens, trace.video_tokens)]
    table += [(_row_name(r), _mean(trace.kept_audio, r), _mean(trace.kept_video, r)) for r in rows]
    for name, audio, video in table:
        line = Text(" " * INDENT)
        line.append(f"{name:>6} ", style="dim")
        line.append(f"{fmt.number(audio):>{room}}{fmt.number(video):>{room}}")
        line.append(f"{fmt.share((audio + video) / total):>9}  ")
        line.append_text(stacked(audio / total, video / total, space, ink))
        lines.append(line)
    return lines


def heatmap(trace: Trace, rows: list[tuple[int, int]], width: int, ink: Ink) -> list[Text]:
    """Return layers × moments, shaded by the share kept; strips below; clock times at the foot."""
    chunks = trace.chunks
    if not chunks or not trace.av_tokens or not trace.layers:
        return []
    margin = INDENT + 11
    columns = bins(len(chunks), max(width - margin, 1))
    cell = max(min((width - margin) // len(columns), 6), 1)
    whole = [sum(c.audio_total + c.video_total for c in chunks[a:b]) for a, b in columns]

    def kept(row: tuple[int, int], column: int) -> float:
        a, b = columns[column]
        tokens = sum(_mean(c.audio, row) + _mean(c.video, row) for c in chunks[a:b])
        return tokens / whole[column] if whole[column] else 0.0

    table = [[kept(row, i) for i in range(len(columns))] for row in rows]
    top = max((v for line in table for v in line), default=0.0) or 1.0
    lines = [title("Share of each moment's tokens entering each layer", width)]
    head = Text(" " * INDENT)
    head.append("layer".rjust(9) + "  ", style="dim")
    head.append_text(heat_legend(top, ink))
    # The blank line stands beside the bars' row for the prompt, so that layers line up.
    lines += [head, Text()]
    for row, values in zip(rows, table, strict=True):
        line = Text(" " * INDENT)
        line.append(_row_name(row).rjust(9) + "  ", style="dim")
        for value, run in groupby(values):
            line.append_text(heat_cell(value / top, cell * len(list(run)), ink))
        lines.append(line)
    lines.append(Text())
    lines += _strips(trace, columns, cell, ink)
    axis = time_axis(
        [(chunks[a].start, chunks[b - 1].end) for a, b in columns], cell, width - margin
    )
    return lines + [Text(" " * margin).append_text(row) for row in axis]


def _strips(trace: Trace, columns: list[tuple[int, int]], cell: int, ink: Ink) -> list[Text]:
    chunks, depth = trace.chunks, trace.layers

    def mean_kept(kind: str) -> list[float]:
        found = []
        for a, b in columns:
            total = sum(getattr(c, f"{kind}_total") for c in chunks[a:b]) * depth
            part = sum(sum(getattr(c, kind)) for c in chunks[a:b])
            found.append(part / total if total else 0.0)
        return found

    strips = []
    if trace.audio_tokens:
        strips.append(("audio", mean_kept("audio"), AUDIO))
    if trace.video_tokens:
        strips.append(("video", mean_kept("video"), VIDEO))
    if any(c.relevance is not None for c in chunks):
        relevance = [sum(c.relevance or 0.0 for c in chunks[a:b]) for a, b in columns]
        strips.append(("attention", relevance, RELEVANCE))
    lines = []
    for name, values, colour in strips:
        line = Text(" " * INDENT)
        line.append(name.rjust(9) + "  ", style="dim")
        lines.append(line.append_text(strip(values, cell, max(values), ink, colour)))
    return lines
