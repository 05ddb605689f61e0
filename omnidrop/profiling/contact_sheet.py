"""The contact sheet: each chunk's frame and log-mel, survivors bright and the rest dimmed.

Its heading names question and answer; each chunk says how much of the attention it has, and the
moments that the answer came from are framed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from omnidrop.format import clock, share
from omnidrop.profiling.figure_style import (
    AUDIO,
    CONTROL,
    FAINT,
    RELEVANCE,
    VIDEO,
    new_figure,
    styled,
)
from omnidrop.profiling.marking import dimmed, wrapped
from omnidrop.profiling.survivors import Replay, ReplayedChunk

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Width of the sheet, in inches.
WIDTH = 14.0
#: Space between cells, in inches.
GAP = 0.14
#: Height of the heading without its question, and of each line of that, in inches.
HEAD, HEAD_LINE = 0.94, 0.27
#: Characters of the question in an inch of the heading.
IN_AN_INCH = 9.5
#: Height of a caption, in inches: of times and counts, and with the attention.
CAPTION, WITH_ATTENTION = 0.26, 0.5
#: Height of the log-mel with its marks, in inches.
STRIP = 0.72
#: Height of the marks below a log-mel, in inches.
MARK = 0.09
#: Widest cell, in inches.
MAX_CELL = 3.4


def contact_sheet(replay: Replay) -> Figure:
    """Draw a Replay, chunk by chunk, left to right and top to bottom."""
    frames = [c.frame for c in replay.chunks if c.frame is not None]
    mels = [c.mel for c in replay.chunks if c.mel is not None]
    aspect = frames[0].shape[0] / frames[0].shape[1] if frames else 0.0
    across = max(1, min(_across(len(replay.chunks), aspect), len(replay.chunks)))
    down = math.ceil(len(replay.chunks) / across)
    cell = min((WIDTH - GAP) / across - GAP, MAX_CELL)
    image, strip = cell * aspect, STRIP if mels else 0.0
    most = max((c.relevance or 0.0 for c in replay.chunks), default=0.0)
    caption = WITH_ATTENTION if most else CAPTION
    step = caption + image + strip + GAP
    width = max(across * (cell + GAP) + GAP, 6.5)
    room = round(width * IN_AN_INCH)
    heading = wrapped(replay.question, lambda line: len(line) <= room) if replay.question else []
    head = HEAD + HEAD_LINE * len(heading)
    height = head + down * step + GAP
    range_ = _loudness(mels)
    with styled():
        figure = new_figure(width, height, layout=None)

        def write(text: str, top: float, left: float = GAP, **look: Any) -> None:
            """Write a line, placed in inches from the upper left corner."""
            figure.text(left / width, 1 - top / height, text, va="center", **look)

        for number, line in enumerate(heading):
            write(line, 0.22 + HEAD_LINE * number, fontsize=12.5, weight="bold")
        top = 0.22 + HEAD_LINE * len(heading)
        if replay.question:
            write(_answer(replay), top, fontsize=11)
            top += 0.27
        write(_title(replay), top, fontsize=9.5)
        write(_legend(replay), top + 0.21, fontsize=8.5, color=CONTROL)

        def place(left: float, top: float, tall: float) -> Any:
            """Add axes of one cell's width, measured in inches from the upper left corner."""
            axis = figure.add_axes(
                (left / width, 1 - (top + tall) / height, cell / width, tall / height)
            )
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_visible(False)
            return axis

        for number, chunk in enumerate(replay.chunks):
            row, column = divmod(number, across)
            left, top = GAP + column * (cell + GAP), head + row * step
            size = min(8.5, 3.4 * cell)
            moment = replay.moment(chunk)
            if moment is not None:
                frame = (-GAP * 0.4, -0.01, cell + GAP * 0.8, step - 0.02)
                _frame_moment(figure, left, top, frame, width, height)
            write(_caption(chunk), top + 0.13, left, fontsize=size)
            if most:
                _draw_attention(place(left, top + 0.40, 0.06), (chunk.relevance or 0.0) / most)
                write(_attention(chunk, moment), top + 0.30, left, fontsize=size, color=RELEVANCE)
            if image:
                _draw_frame(place(left, top + caption, image), chunk)
            if strip:
                _draw_mel(place(left, top + caption + image + MARK / 2, strip - 2 * MARK), chunk,
                          range_)  # fmt: skip
    return figure


def _across(count: int, aspect: float) -> int:
    """Return the number of columns that makes the sheet about as high as wide."""
    return max(4, min(8, round(math.sqrt(count * max(aspect + 0.3, 0.4)))))


def _legend(replay: Replay) -> str:
    parts = []
    if any(c.frame is not None for c in replay.chunks):
        parts.append("bright patches are kept, dark and pale ones were dropped")
    if any(c.mel is not None for c in replay.chunks):
        parts.append("coloured and marked audio tokens of the log-mel are kept")
    if replay.moments:
        parts.append("framed: moments that the answer came from")
    return "; ".join(parts)


def _answer(replay: Replay) -> str:
    answer = " ".join(replay.answer.split()) or "no words"
    return wrapped(f"Answer: {answer}", lambda line: len(line) <= 90, most=1)[0]


def _attention(chunk: ReplayedChunk, moment: float | None) -> str:
    said = f"attention {share(chunk.relevance, 0)}"
    return said if moment is None else f"{said} · moment"


def _frame_moment(
    figure: Figure,
    left: float,
    top: float,
    frame: tuple[float, float, float, float],
    width: float,
    height: float,
) -> None:
    """Draw a frame around a chunk: left, top, width and height in inches, from the chunk's own."""
    from matplotlib.patches import Rectangle

    x, y, wide, tall = frame
    figure.add_artist(
        Rectangle(
            ((left + x) / width, 1 - (top + y + tall) / height), wide / width, tall / height,
            fill=False, ec=RELEVANCE, lw=2.0, transform=figure.transFigure,
        )
    )  # fmt: skip


def _draw_attention(axis: Any, value: float) -> None:
    """Draw a bar: `value` 1 for the chunk that has most."""
    axis.barh([0], [1], color=FAINT)
    axis.barh([0], [value], color=RELEVANCE)
    axis.set_xlim(0, 1)
    axis.set_ylim(-0.4, 0.4)


def _title(replay: Replay) -> str:
    title = f"{replay.label} · what is left at layer {replay.layer} of {replay.layers}"
    if replay.left_out:
        title += f" · {len(replay.chunks)} of {len(replay.chunks) + replay.left_out} chunks"
    return title


def _caption(chunk: ReplayedChunk) -> str:
    parts = [f"{clock(chunk.start, None)}–{clock(chunk.end, None)}"]
    if chunk.video_total:
        parts.append(f"video {chunk.video_kept}/{chunk.video_total}")
    if chunk.audio is not None:
        parts.append(f"audio {int(chunk.audio.sum())}/{len(chunk.audio)}")
    return " · ".join(parts)


def _draw_frame(axis: Any, chunk: ReplayedChunk) -> None:
    if chunk.frame is None or chunk.patches is None:
        return
    axis.imshow(dimmed(chunk.frame, chunk.patches), interpolation="nearest", aspect="auto")
    height, width = chunk.frame.shape[:2]
    rows, columns = chunk.patches.shape
    for row, column in np.argwhere(chunk.patches):
        _outline(axis, column * width / columns, row * height / rows, width / columns,
                 height / rows)  # fmt: skip


def _outline(axis: Any, left: float, top: float, width: float, height: float) -> None:
    from matplotlib.patches import Rectangle

    axis.add_patch(
        Rectangle((left - 0.5, top - 0.5), width, height, fill=False, ec=VIDEO, lw=0.5, alpha=0.7)
    )


def _loudness(mels: list[np.ndarray]) -> tuple[float, float]:
    """Return the colour range of the log-mel, the same for all chunks."""
    if not mels:
        return 0.0, 1.0
    low, high = min(float(p.min()) for p in mels), max(float(p.max()) for p in mels)
    return low, high if high > low else low + 1.0


def _draw_mel(axis: Any, chunk: ReplayedChunk, loudness: tuple[float, float]) -> None:
    """Draw the log-mel, dropped tokens dimmed, with a mark below each survivor."""
    import matplotlib

    if chunk.mel is None or chunk.audio is None or chunk.lit is None:
        return
    low, high = loudness
    shade = matplotlib.colormaps["magma"]((chunk.mel[::-1] - low) / (high - low))[..., :3]
    shade = np.where(chunk.lit[None, :, None], shade, shade.mean(axis=-1, keepdims=True) * 0.5)
    tokens = len(chunk.audio)
    axis.imshow(shade, aspect="auto", extent=(0, tokens, 0, 1), interpolation="nearest")
    for token in np.flatnonzero(chunk.audio):
        axis.axvspan(token, token + 1, -0.17, -0.05, color=AUDIO, clip_on=False, lw=0)
    axis.set_xlim(0, tokens)
    axis.set_ylim(0, 1)
