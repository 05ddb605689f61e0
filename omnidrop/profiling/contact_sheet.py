"""The contact sheet: each chunk's frame and log-mel, survivors bright and the rest dimmed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from omnidrop.format import clock
from omnidrop.profiling.figure_style import AUDIO, CONTROL, VIDEO, new_figure, styled
from omnidrop.profiling.survivors import Replay, ReplayedChunk

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Brightness of dropped tokens, as a share of their own.
DIM = 0.5
#: Width of the sheet, in inches.
WIDTH = 14.0
#: Space between cells, in inches.
GAP = 0.14
#: Height of the heading, in inches.
HEAD = 0.66
#: Height of a caption, in inches.
CAPTION = 0.26
#: Height of the log-mel with its marks, in inches.
STRIP = 0.72
#: Height of the marks below a log-mel, in inches.
MARK = 0.09
#: Widest cell, in inches.
MAX_CELL = 3.4


def dimmed(frame: np.ndarray, kept: np.ndarray, dim: float = DIM) -> np.ndarray:
    """Return a frame with the dropped tokens dark and grey.

    Parameters
    ----------
    frame : ndarray, (H, W, 3) uint8
    kept : ndarray, (h, w) bool
        One value per token; cells need not divide the frame evenly.
    dim : float
        Share of the brightness that dropped tokens keep.
    """
    height, width = frame.shape[:2]
    rows = np.arange(height) * kept.shape[0] // height
    columns = np.arange(width) * kept.shape[1] // width
    lit = kept[rows[:, None], columns[None, :]]
    grey = frame.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    dark = (grey * dim).astype(np.uint8)[..., None]
    return np.where(lit[..., None], frame, dark)


def contact_sheet(replay: Replay) -> Figure:
    """Draw a Replay, chunk by chunk, left to right and top to bottom."""
    frames = [c.frame for c in replay.chunks if c.frame is not None]
    mels = [c.mel for c in replay.chunks if c.mel is not None]
    aspect = frames[0].shape[0] / frames[0].shape[1] if frames else 0.0
    across = max(1, min(_across(len(replay.chunks), aspect), len(replay.chunks)))
    down = math.ceil(len(replay.chunks) / across)
    cell = min((WIDTH - GAP) / across - GAP, MAX_CELL)
    image, strip = cell * aspect, STRIP if mels else 0.0
    step = CAPTION + image + strip + GAP
    width, height = max(across * (cell + GAP) + GAP, 6.5), HEAD + down * step + GAP
    range_ = _loudness(mels)
    with styled():
        figure = new_figure(width, height, layout=None)
        figure.text(GAP / width, 1 - 0.22 / height, _title(replay), fontsize=12, va="center")
        figure.text(GAP / width, 1 - 0.46 / height, _legend(replay), fontsize=8.5, va="center",
                    color=CONTROL)  # fmt: skip

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
            left, top = GAP + column * (cell + GAP), HEAD + row * step
            figure.text(left / width, 1 - (top + 0.13) / height, _caption(chunk),
                        fontsize=min(8.5, 3.4 * cell), va="center")  # fmt: skip
            if image:
                _draw_frame(place(left, top + CAPTION, image), chunk)
            if strip:
                _draw_mel(place(left, top + CAPTION + image + MARK / 2, strip - 2 * MARK), chunk,
                          range_)  # fmt: skip
    return figure


def _across(count: int, aspect: float) -> int:
    """Return the number of columns that makes the sheet about as high as wide."""
    return max(4, min(8, round(math.sqrt(count * max(aspect + 0.3, 0.4)))))


def _legend(replay: Replay) -> str:
    parts = []
    if any(c.frame is not None for c in replay.chunks):
        parts.append("bright patches are kept, grey ones were dropped")
    if any(c.mel is not None for c in replay.chunks):
        parts.append("coloured and marked audio tokens of the log-mel are kept")
    return "; ".join(parts)


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
