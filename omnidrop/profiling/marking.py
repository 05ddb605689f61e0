"""Marks on frames: dropped patches dimmed, kept ones outlined, and a caption below the picture."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

#: Of dropped patches: the share of their colour and of their brightness that is left, and the level
#: that their black becomes.
COLOUR, DIM, LIFT = 0.4, 0.5, 16
#: Colour of the line around kept patches, and of a caption's background and text.
EDGE, PAPER, INK, FAINT = (86, 180, 233), (20, 22, 27), (229, 231, 236), (166, 174, 187)
#: Pixels that a caption needs in width; smaller pictures are enlarged.
LEGIBLE = 360
#: Most lines of one paragraph of a caption.
MOST_LINES = 2


def dimmed(frame: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return a frame with the dropped tokens dark and pale, but recognisable.

    Some colour is left, because things may differ from what is behind them in colour alone, and
    black is lifted, so that dark scenes stay visible.

    Parameters
    ----------
    frame : ndarray, (H, W, 3) uint8
    kept : ndarray, (h, w) bool
        One value per token; cells need not divide the frame evenly.
    """
    lit = _per_pixel(frame, kept)
    grey = frame.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    pale = grey[..., None] + COLOUR * (frame - grey[..., None])
    dark = np.minimum(pale * DIM + LIFT, 255).astype(np.uint8)
    return np.where(lit[..., None], frame, dark)


def outlined(frame: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return a frame with a line where kept tokens meet dropped ones.

    Parameters
    ----------
    frame : ndarray, (H, W, 3) uint8
    kept : ndarray, (h, w) bool
    """
    lit = _per_pixel(frame, kept)
    edge = np.zeros_like(lit)
    for _ in range(max(1, min(frame.shape[:2]) // 360)):
        inside = lit & ~edge
        for axis in (0, 1):
            for step in (1, -1):
                beside = np.roll(inside, step, axis)
                border = [slice(None), slice(None)]
                border[axis] = slice(0, 1) if step == 1 else slice(-1, None)
                beside[tuple(border)] = True  # the frame's own border is no line
                edge |= inside & ~beside
    return np.where(edge[..., None], np.array(EDGE, dtype=np.uint8), frame)


def _per_pixel(frame: np.ndarray, kept: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    rows = np.arange(height) * kept.shape[0] // height
    columns = np.arange(width) * kept.shape[1] // width
    return kept[rows[:, None], columns[None, :]]


def enlargement(width: int) -> int:
    """Return the whole factor by which a picture is enlarged so that its caption can be read."""
    return max(1, -(-LEGIBLE // width))


def caption(width: int, paragraphs: Sequence[tuple[str, bool]]) -> np.ndarray:
    """Return a caption as wide as a picture.

    Parameters
    ----------
    width : int
        Pixels.
    paragraphs : sequence of (str, bool)
        Text, and whether it stands out. Each is wrapped, and cut after `MOST_LINES` lines.

    Returns
    -------
    ndarray, (H, width, 3) uint8
    """
    size = max(12, min(36, width // 34))
    margin, step = size // 2, round(size * 1.4)
    lines = [
        (line, strong, _font(size, strong))
        for text, strong in paragraphs
        for line in _wrapped(text, _font(size, strong), width - 2 * margin)
    ]
    image = Image.new("RGB", (width, 2 * margin + step * len(lines)), PAPER)
    draw = ImageDraw.Draw(image)
    for number, (line, strong, font) in enumerate(lines):
        draw.text((margin, margin + step * number), line, fill=INK if strong else FAINT, font=font)
    return np.asarray(image).copy()


@cache
def _font(size: int, strong: bool) -> ImageFont.FreeTypeFont:
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if strong else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, room: int) -> list[str]:
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return wrapped(plain, lambda line: font.getlength(line) <= room)


def wrapped(text: str, fits: Callable[[str], bool], most: int = MOST_LINES) -> list[str]:
    """Return a text in lines that fit; of a longer text `most` lines, the last with an ellipsis.

    Parameters
    ----------
    text : str
    fits : callable
        Whether a line fits; a line of fewer characters must fit if a longer one does.
    most : int
    """
    low, high = 1, max(1, len(text))
    while low < high:  # the longest prefix that fits bounds the characters of every line
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(text[:middle]) else (low, middle - 1)
    width = low
    lines = textwrap.wrap(text, width) or [""]
    while width > 1 and not all(fits(line) for line in lines):
        width -= 1
        lines = textwrap.wrap(text, width)
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and not fits(last + "…"):
        last = last[:-1]
    return [*lines[: most - 1], last.rstrip() + "…"]
