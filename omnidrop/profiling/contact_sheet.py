"""The contact sheet: per chunk its frame and its log-mel, survivors lit and the rest dimmed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from omnidrop.profiling.figures import AUDIO, CONTROL, VIDEO, clock, new_figure, styled
from omnidrop.profiling.survivors import ChunkSight, Sight

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Brightness that is left to what was dropped.
DIM = 0.5
#: Inches: the sheet's width, the space between cells, the heading, a caption, sound, its marks.
WIDTH, GAP, HEAD, CAPTION, STRIP, MARK = 14.0, 0.14, 0.66, 0.26, 0.72, 0.09


def dimmed(frame: np.ndarray, kept: np.ndarray, dim: float = DIM) -> np.ndarray:
    """Return a frame with the tokens that were dropped dark and grey.

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


def contact_sheet(sight: Sight) -> Figure:
    """Draw a Sight, chunk after chunk, left to right and top to bottom."""
    seen = [c.frame for c in sight.chunks if c.frame is not None]
    heard = [c.mel for c in sight.chunks if c.mel is not None]
    aspect = seen[0].shape[0] / seen[0].shape[1] if seen else 0.0
    across = max(1, min(_across(len(sight.chunks), aspect), len(sight.chunks)))
    down = math.ceil(len(sight.chunks) / across)
    cell = min((WIDTH - GAP) / across - GAP, 3.4)
    picture, strip = cell * aspect, STRIP if heard else 0.0
    step = CAPTION + picture + strip + GAP
    width, height = max(across * (cell + GAP) + GAP, 6.5), HEAD + down * step + GAP
    range_ = _loudness(heard)
    with styled():
        figure = new_figure(width, height, layout=None)
        figure.text(GAP / width, 1 - 0.22 / height, _title(sight), fontsize=12, va="center")
        figure.text(GAP / width, 1 - 0.46 / height, _legend(sight), fontsize=8.5, va="center",
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

        for number, chunk in enumerate(sight.chunks):
            row, column = divmod(number, across)
            left, top = GAP + column * (cell + GAP), HEAD + row * step
            figure.text(left / width, 1 - (top + 0.13) / height, _caption(chunk),
                        fontsize=min(8.5, 3.4 * cell), va="center")  # fmt: skip
            if picture:
                _frame(place(left, top + CAPTION, picture), chunk)
            if strip:
                _sound(place(left, top + CAPTION + picture + MARK / 2, strip - 2 * MARK), chunk,
                       range_)  # fmt: skip
    return figure


def _across(count: int, aspect: float) -> int:
    """Return how many chunks stand side by side, so that the sheet is about as high as wide."""
    return max(4, min(8, round(math.sqrt(count * max(aspect + 0.3, 0.4)))))


def _legend(sight: Sight) -> str:
    said = []
    if any(c.frame is not None for c in sight.chunks):
        said.append("lit patches are left, grey ones were dropped")
    if any(c.mel is not None for c in sight.chunks):
        said.append("coloured and marked sounds of the log-mel are left")
    return "; ".join(said)


def _title(sight: Sight) -> str:
    said = f"{sight.label} · what is left at layer {sight.layer} of {sight.layers}"
    if sight.left_out:
        said += f" · {len(sight.chunks)} of {len(sight.chunks) + sight.left_out} chunks"
    return said


def _caption(chunk: ChunkSight) -> str:
    parts = [f"{clock(chunk.start)}–{clock(chunk.end)}"]
    if chunk.video_total:
        parts.append(f"picture {chunk.video_kept}/{chunk.video_total}")
    if chunk.sounds is not None:
        parts.append(f"sound {int(chunk.sounds.sum())}/{len(chunk.sounds)}")
    return " · ".join(parts)


def _frame(axis: Any, chunk: ChunkSight) -> None:
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


def _loudness(heard: list[np.ndarray]) -> tuple[float, float]:
    """Return the range of the spectrum that is drawn, the same for all chunks."""
    if not heard:
        return 0.0, 1.0
    low, high = min(float(p.min()) for p in heard), max(float(p.max()) for p in heard)
    return low, high if high > low else low + 1.0


def _sound(axis: Any, chunk: ChunkSight, loudness: tuple[float, float]) -> None:
    """Draw the log-mel, dropped tokens dimmed, and a mark under each that is left."""
    import matplotlib

    if chunk.mel is None or chunk.sounds is None or chunk.lit is None:
        return
    low, high = loudness
    shade = matplotlib.colormaps["magma"]((chunk.mel[::-1] - low) / (high - low))[..., :3]
    shade = np.where(chunk.lit[None, :, None], shade, shade.mean(axis=-1, keepdims=True) * 0.5)
    tokens = len(chunk.sounds)
    axis.imshow(shade, aspect="auto", extent=(0, tokens, 0, 1), interpolation="nearest")
    for token in np.flatnonzero(chunk.sounds):
        axis.axvspan(token, token + 1, -0.17, -0.05, color=AUDIO, clip_on=False, lw=0)
    axis.set_xlim(0, tokens)
    axis.set_ylim(0, 1)
