"""What happens in a clip: parts of instruments and figures on screen, drawn from a seed.

Parts follow each other, and so do figures, each on a timeline of its own. No instrument, figure or
colour occurs twice in a clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

INSTRUMENTS = ("drums", "flute", "guitar", "marimba", "organ", "piano", "trumpet")
FIGURES = ("circle", "cross", "ring", "square", "star", "triangle")
PAINTS = ("blue", "green", "orange", "purple", "red", "yellow")
FRAMES = ((112, 112), (140, 112), (112, 140))
MIN_PART_S = 1.6


@dataclass(frozen=True)
class Part:
    """An instrument that plays from `begin` to `stop`, in seconds."""

    instrument: str
    begin: float
    stop: float


@dataclass(frozen=True)
class Figure:
    """A figure on screen from `begin` to `stop`, in seconds.

    Attributes
    ----------
    centre : where its centre is at the middle of its time, as shares of width and height
    sway : how far it swings from there, as shares of width and height
    turn : how far it turns to each side, in radians
    radius : as a share of the shorter side
    """

    figure: str
    paint: str
    begin: float
    stop: float
    centre: tuple[float, float]
    sway: tuple[float, float]
    turn: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """All that happens in a clip of `seconds`; `frame` is width and height in pixels."""

    seed: int
    seconds: float
    frame: tuple[int, int]
    parts: tuple[Part, ...]
    figures: tuple[Figure, ...]


def _cut(rng: np.random.Generator, seconds: float, count: int) -> list[tuple[float, float]]:
    """Cut a clip into spans of at least `MIN_PART_S` with short gaps between them."""
    weights = rng.dirichlet(np.full(count, 6.0))
    spare = seconds - count * MIN_PART_S
    spans, at = [], 0.0
    for weight in weights:
        length = MIN_PART_S + spare * float(weight)
        gap = min(float(rng.uniform(0.0, 0.12)), length - MIN_PART_S + 0.1)
        spans.append((round(at, 2), round(at + length - gap, 2)))
        at += length
    return spans


def draw(seed: int) -> Scene:
    """Draw the scene of a seed.

    Parameters
    ----------
    seed : any non-negative integer

    Returns
    -------
    Scene
        Of 5.6 to 9 s.
    """
    rng = np.random.default_rng([2, seed])
    seconds = round(float(rng.uniform(5.6, 9.0)), 1)
    frame = FRAMES[int(rng.choice(len(FRAMES), p=(0.7, 0.15, 0.15)))]
    counts = [int(rng.choice([2, 3], p=(0.5, 0.5))) for _ in range(2)]
    names = rng.permutation(INSTRUMENTS)
    parts = tuple(
        Part(str(names[i]), *span) for i, span in enumerate(_cut(rng, seconds, counts[0]))
    )
    kinds, paints = rng.permutation(FIGURES), rng.permutation(PAINTS)
    figures = []
    for i, (begin, stop) in enumerate(_cut(rng, seconds, counts[1])):
        radius = float(rng.uniform(0.2, 0.27))
        reach = radius + 0.03
        centre = [float(rng.uniform(reach + 0.1, 0.9 - reach)) for _ in range(2)]
        sway = [float(rng.uniform(-0.1, 0.1)) for _ in range(2)]
        figures.append(
            Figure(
                str(kinds[i]),
                str(paints[i]),
                begin,
                stop,
                (round(centre[0], 3), round(centre[1], 3)),
                (round(sway[0], 3), round(sway[1], 3)),
                round(float(rng.uniform(0, 0.12)), 3),
                round(radius, 3),
            )
        )
    return Scene(seed, seconds, frame, parts, tuple(figures))
