"""The picture of a scene: figures as signed distances, with smooth edges, on a soft background.

A signed distance is negative inside a figure. Its value in pixels gives the share of a pixel that
the figure covers, so that edges are smooth.
"""

from __future__ import annotations

import math

import numpy as np

from .scenes import Figure, Scene

RATE = 12  # frames a second
PAINT = {
    "red": (214, 40, 44),
    "green": (44, 158, 66),
    "blue": (48, 82, 214),
    "yellow": (240, 216, 50),
    "purple": (144, 58, 172),
    "orange": (244, 134, 30),
}
Grid = np.ndarray


def _polygon(x: Grid, y: Grid, corners: np.ndarray) -> Grid:
    """Return the signed distance to a closed polygon, corners (n, 2)."""
    nearest = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(np.roll(corners, 1, 0), corners, strict=True):
        ex, ey = bx - ax, by - ay
        along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - ax - along * ex, y - ay - along * ey))
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * ex / ey)
    return np.where(inside, -nearest, nearest)


def _corners(count: int, inner: float = 1.0) -> np.ndarray:
    """Return the corners of a regular polygon that stands on a side, or of a star."""
    angle = -math.pi / 2 + np.arange(count) * 2 * math.pi / count
    radius = np.where(np.arange(count) % 2, inner, 1.0)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def distance(figure: str, x: Grid, y: Grid) -> Grid:
    """Return the signed distance to a figure of radius 1 around (0, 0); y points down."""
    if figure == "circle":
        return np.hypot(x, y) - 0.95
    if figure == "ring":
        return abs(np.hypot(x, y) - 0.8) - 0.22
    if figure == "square":
        return np.maximum(abs(x), abs(y)) - 0.86
    if figure == "cross":
        return np.minimum(
            np.maximum(abs(x) - 0.3, abs(y) - 1.0), np.maximum(abs(x) - 1.0, abs(y) - 0.3)
        )
    if figure == "triangle":
        return _polygon(x, y - 0.2, 1.15 * _corners(3))
    if figure == "star":
        return _polygon(x, y, 1.12 * _corners(10, 0.43))
    raise ValueError(f"no figure is called {figure!r}")


def cover(figure: Figure, t: float, frame: tuple[int, int]) -> Grid:
    """Return the share of each pixel that a figure covers at time t, (height, width)."""
    width, height = frame
    share = (t - figure.begin) / (figure.stop - figure.begin) - 0.5
    swing = math.sin(math.pi * share)
    cx = (figure.centre[0] + figure.sway[0] * swing) * width
    cy = (figure.centre[1] + figure.sway[1] * swing) * height
    size = figure.radius * min(frame)
    turn = figure.turn * swing
    x = (np.arange(width)[None, :] + 0.5 - cx) / size
    y = (np.arange(height)[:, None] + 0.5 - cy) / size
    u = x * math.cos(turn) + y * math.sin(turn)
    v = y * math.cos(turn) - x * math.sin(turn)
    return np.clip(0.5 - distance(figure.figure, u, v) * size, 0, 1)


def ground(scene: Scene) -> np.ndarray:
    """Return the background: grey with a vignette or a soft diagonal, float (height, width, 3)."""
    rng = np.random.default_rng([3, scene.seed])
    width, height = scene.frame
    level = float(rng.choice([30, 75, 130, 190]))
    x = np.linspace(-1, 1, width)[None, :]
    y = np.linspace(-1, 1, height)[:, None]
    fall = 1 - 0.25 * (x * x + y * y) if rng.random() < 0.5 else 1 + 0.12 * (x + y)
    tint = level + rng.uniform(-8, 8, 3)
    return fall[..., None] * tint


def picture(scene: Scene, t: float, under: np.ndarray | None = None) -> np.ndarray:
    """Return the picture at time t, uint8 (height, width, 3)."""
    out = np.array(ground(scene) if under is None else under)
    for figure in scene.figures:
        if figure.begin <= t < figure.stop:
            share = cover(figure, t, scene.frame)[..., None]
            out = out * (1 - share) + np.array(PAINT[figure.paint], float) * share
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def film(scene: Scene) -> np.ndarray:
    """Return all pictures at `RATE` a second, uint8 (T, height, width, 3)."""
    under = ground(scene)
    return np.stack([picture(scene, k / RATE, under) for k in range(round(scene.seconds * RATE))])
