"""Draw the frames of a clip: shapes on a background, a digit in a corner, words on a band."""

from __future__ import annotations

import math

import numpy as np

from .letters import draw_word
from .world import COLOURS, Clip, Flash, Shape

RGB = {
    "red": (222, 32, 38),
    "green": (34, 160, 60),
    "blue": (40, 70, 225),
    "yellow": (244, 222, 40),
    "purple": (150, 50, 180),
    "orange": (250, 135, 20),
}
PLATE = (8, 8, 10)
GLYPHS = (  # two fonts of 5 x 7 dots, digits 1 to 6, rows as bits
    (
        (4, 12, 4, 4, 4, 4, 14),
        (14, 17, 1, 2, 4, 8, 31),
        (31, 2, 4, 2, 1, 17, 14),
        (2, 6, 10, 18, 31, 2, 2),
        (31, 16, 30, 1, 1, 17, 14),
        (6, 8, 16, 30, 17, 17, 14),
    ),
    (
        (2, 6, 2, 2, 2, 2, 2),
        (31, 1, 1, 31, 16, 16, 31),
        (31, 1, 1, 15, 1, 1, 31),
        (17, 17, 17, 31, 1, 1, 1),
        (31, 16, 16, 31, 1, 1, 31),
        (31, 16, 16, 31, 17, 17, 31),
    ),
)


def frame_times(duration: float, fps: float = 2.0) -> np.ndarray:
    """Return the times at which a model samples a clip: from 0 on, an even number of frames."""
    return np.arange(2 * max(1, math.ceil(duration * fps / 2 - 0.5))) / fps


def _star(points: int = 5, inner: float = 0.42) -> np.ndarray:
    angle = np.arange(points * 2) * math.pi / points - math.pi / 2
    radius = np.where(np.arange(points * 2) % 2, inner, 1.0) * 1.12
    return np.stack([np.cos(angle) * radius, np.sin(angle) * radius], 1)


POLYGONS = {
    "triangle": np.array([(0, -1.05), (1.05, 0.85), (-1.05, 0.85)]),
    "star": _star(),
}


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Tell which points lie in the shape (u right, v down, in radii from its centre)."""
    if shape == "circle":
        return u * u + v * v <= 1
    if shape == "ring":
        r = u * u + v * v
        return (r <= 1.1) & (r >= 0.36)
    if shape == "square":
        return np.maximum(abs(u), abs(v)) <= 0.88
    if shape == "cross":
        a, b = abs(u), abs(v)
        return (np.minimum(a, b) <= 0.32) & (np.maximum(a, b) <= 1.05)
    corners = POLYGONS[shape]
    hit = np.zeros(u.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
        if y0 != y1:
            hit ^= ((v < y0) != (v < y1)) & (u < (x1 - x0) * (v - y0) / (y1 - y0) + x0)
    return hit


def shape_mask(shape: Shape, t: float, width: int, height: int, step: int = 1) -> np.ndarray:
    """Return the mask of the shape at time t, at every `step`-th pixel."""
    side = min(width, height)
    dt = t - shape.start
    cx, cy = (shape.x + shape.vx * dt) * side, (shape.y + shape.vy * dt) * side
    size = shape.size * side
    u = (np.arange(step / 2, width, step) - cx) / size
    v = (np.arange(step / 2, height, step) - cy) / size
    return _inside(shape.shape, *np.broadcast_arrays(u[None, :], v[:, None]))


def coverage(shape: Shape, t: float, width: int, height: int, cell: int = 28) -> np.ndarray:
    """Return the share of each grid cell that the shape covers, (rows, columns)."""
    mask = shape_mask(shape, t, width, height, 4)
    k = cell // 4
    return mask.reshape(height // cell, k, width // cell, k).mean((1, 3))


def background(clip: Clip) -> np.ndarray:
    """Return the background image, float (height, width, 3)."""
    h, w = clip.height, clip.width
    rng = np.random.default_rng([clip.seed, 3])
    tint = np.array(clip.tint, np.float64)
    x, y = np.arange(w)[None, :], np.arange(h)[:, None]
    kind = clip.background
    period = float(rng.uniform(8, 24))
    angle = float(rng.uniform(0, math.pi))
    along = x * math.cos(angle) + y * math.sin(angle)
    depth = float(rng.uniform(8, 26))
    if kind == "gradient":
        level = along / max(w, h) * 2 - 0.5
    elif kind == "stripes":
        level = np.sign(np.sin(along * 2 * math.pi / period))
    elif kind == "checks":
        level = ((x // int(period) + y // int(period)) % 2) * 2.0 - 1
    elif kind == "grain":
        level = rng.uniform(-1, 1, (h // 2 + 1, w // 2 + 1)).repeat(2, 0).repeat(2, 1)[:h, :w]
    elif kind in ("blobs", "tiles"):  # random levels on a coarse grid, smooth or not
        n = int(rng.integers(6, 22))
        coarse = rng.uniform(-1, 1, (h // n + 2, w // n + 2))
        if kind == "tiles":
            level = coarse.repeat(n, 0).repeat(n, 1)[:h, :w]
        else:
            iy, ix = np.divmod(np.arange(h), n), np.divmod(np.arange(w), n)
            fy, fx = iy[1][:, None] / n, ix[1][None, :] / n
            top = coarse[iy[0]][:, ix[0]] * (1 - fx) + coarse[iy[0]][:, ix[0] + 1] * fx
            low = coarse[iy[0] + 1][:, ix[0]] * (1 - fx) + coarse[iy[0] + 1][:, ix[0] + 1] * fx
            level = 1.4 * (top * (1 - fy) + low * fy)
    elif kind == "dots":
        level = (
            ((x % period) - period / 2) ** 2 + ((y % period) - period / 2) ** 2 < (period / 4) ** 2
        ) * 2.0 - 1
    elif kind == "waves":
        level = np.sin(along * 2 * math.pi / period + 2 * np.sin(y * 2 * math.pi / 40))
    else:
        level = np.zeros((h, w))
    return np.broadcast_to(tint, (h, w, 3)) + depth * np.broadcast_to(level, (h, w))[..., None]


def draw_plate(frame: np.ndarray, flash: Flash) -> None:
    """Put the digit on its plate into the frame."""
    h, w, _ = frame.shape
    side = min(h, w)
    size, margin = round(flash.size * side), round(flash.margin * side)
    top = margin if "top" in flash.corner else h - margin - size
    left = margin if "left" in flash.corner else w - margin - size
    frame[top : top + size, left : left + size] = PLATE
    rows = GLYPHS[flash.font][int(flash.digit) - 1]
    dots = np.array([[r >> (4 - i) & 1 for i in range(5)] for r in rows], bool)
    gh = round(size * 0.86)
    gw = round(gh * 5 / 7)
    glyph = dots[np.arange(gh) * 7 // gh][:, np.arange(gw) * 5 // gw]
    y, x = top + (size - gh) // 2, left + (size - gw) // 2
    frame[y : y + gh, x : x + gw][glyph] = bright(flash.colour)


def bright(colour: str) -> tuple[int, ...]:
    """Return the colour that a digit has on the dark plate."""
    return tuple(min(255, v + 25) for v in RGB[colour])


def draw_frame(clip: Clip, t: float, ground: np.ndarray | None = None) -> np.ndarray:
    """Draw the frame at time t: uint8 (height, width, 3)."""
    frame = np.array(background(clip) if ground is None else ground)
    for s in clip.shapes or ():
        if s.start <= t < s.end:
            shade = np.random.default_rng([clip.seed, 5, COLOURS.index(s.colour)])
            frame[shape_mask(s, t, clip.width, clip.height)] = np.clip(
                np.array(RGB[s.colour]) + shade.integers(-16, 17, 3), 0, 255
            )
    if clip.flash and clip.flash.start <= t < clip.flash.end:
        draw_plate(frame, clip.flash)
    for word in clip.words:
        if word.start <= t < word.end:
            draw_word(frame, word)
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def draw_frames(clip: Clip, times: np.ndarray) -> np.ndarray:
    """Draw the frames at the given times: uint8 (T, height, width, 3)."""
    ground = background(clip)
    return np.stack([draw_frame(clip, float(t), ground) for t in times])
