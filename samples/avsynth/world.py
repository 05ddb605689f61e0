"""The events of a clip: instruments on one timeline, shapes on another, and a few brief events.

A clip is drawn from its seed alone, so a question set can be shipped as seeds. Long events
(1.5-4 s) fill dozens of tokens with much the same content. Brief events (one short note, a digit
that flashes in a corner, a short silence) occupy only a few tokens, and most questions are about
them.

    >>> clip = draw_clip(7)
    >>> [s.instrument for s in clip.sounds], clip.flash
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

INSTRUMENTS = ("piano", "guitar", "violin", "trumpet", "flute", "organ", "marimba", "drums")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
DIGITS = ("1", "2", "3", "4", "5", "6")
WORDS = ("apple", "bird", "cake", "door", "fish", "hat", "lamp", "moon", "river", "stone", "tree")
"""Words that wide clips show or say; none of them names a shape, colour or instrument."""
CORNERS = ("top left", "top right", "bottom left", "bottom right")
TRAIN_BACKGROUNDS = ("plain", "gradient", "stripes", "checks", "grain", "blobs", "tiles")
TEST_BACKGROUNDS = ("plain", "dots", "waves")  # the last two never occur in training
TEST_SEEDS = 900_000_000
"""First seed of the test split; training uses smaller seeds only."""


@dataclass(frozen=True)
class Sound:
    """One instrument from `start` to `end` (seconds); `short` marks the single brief note."""

    instrument: str
    start: float
    end: float
    short: bool = False


@dataclass(frozen=True)
class Shape:
    """A coloured shape from `start` to `end`; place, speed and size in short sides of the frame."""

    shape: str
    colour: str
    start: float
    end: float
    x: float
    y: float
    vx: float
    vy: float
    size: float


@dataclass(frozen=True)
class Flash:
    """A digit on a small dark plate in a corner."""

    digit: str
    colour: str
    corner: str
    start: float
    end: float
    size: float
    margin: float
    font: int


@dataclass(frozen=True)
class Word:
    """A word on a dark band at the "top" or "bottom" of the frame."""

    text: str
    start: float
    end: float
    band: str


@dataclass(frozen=True)
class Said:
    """A spoken word; its voice is one of `speech.VOICES`, raised by `shift` semitones."""

    text: str
    start: float
    end: float
    voice: str
    shift: float


@dataclass(frozen=True)
class Clip:
    """All events of a clip; `sounds` is None without audio, `shapes` is None without video."""

    seed: int
    duration: float
    width: int
    height: int
    sounds: tuple[Sound, ...] | None
    shapes: tuple[Shape, ...] | None
    flash: Flash | None
    silence: tuple[float, float] | None
    background: str
    tint: tuple[int, int, int]
    noise_db: float
    gaps: bool
    """True if the audio has pauses other than `silence`; silence is then not asked about."""
    words: tuple[Word, ...] = field(default=(), repr=False)
    """Words on screen, in wide clips only (`wide`); not in `repr`, which fingerprints hash."""
    speech: tuple[Said, ...] = field(default=(), repr=False)
    """Spoken words, likewise."""
    wide: bool = field(default=False, repr=False)
    """Whether `wide` drew the clip, whose questions are those of `wide_questions`."""

    @property
    def short(self) -> Sound | None:
        """Return the brief note, or None."""
        return next((s for s in self.sounds or () if s.short), None)


@dataclass(frozen=True)
class WorldOptions:
    """How clips are drawn.

    Attributes
    ----------
    modes : probabilities of (audio and video, video only, audio only)
    min_s, max_s : shortest and longest clip in seconds
    odd_sizes : share of clips whose frames are not 112 x 112
    test : whether to draw the backgrounds that are kept for the test
    """

    modes: tuple[float, float, float] = (0.6, 0.2, 0.2)
    min_s: float = 6.0
    max_s: float = 10.0
    odd_sizes: float = 0.1
    test: bool = False


SIZES = ((140, 112), (112, 140), (168, 84), (84, 168), (140, 140), (168, 112), (112, 168))


def _sound_line(
    rng: np.random.Generator, options: WorldOptions
) -> tuple[tuple[Sound, ...], tuple[float, float] | None, float, bool]:
    """Draw audio events in sequence; return them, the silence, their end, and if gaps occur."""
    goal = rng.uniform(options.min_s, options.max_s)
    n_long = int(rng.choice([1, 2, 3], p=[0.1, 0.5, 0.4]))
    if n_long == 3 and goal < 6.5:
        n_long = 2
    gaps = n_long == 1 or rng.random() < 0.12
    names = [str(n) for n in rng.permutation(INSTRUMENTS)]
    items: list[tuple[str, float]] = []
    share = min(4.0, max(1.6, (goal - 0.8) / n_long))
    for i in range(n_long):
        items.append((names[i], float(np.clip(share * rng.uniform(0.75, 1.25), 1.5, 4.0))))
    if rng.random() < 0.8:
        at = int(rng.integers(0, n_long + 1))
        items.insert(at, ("~" + names[n_long], float(rng.uniform(0.25, 0.5))))
    pause_at, pause = -1, 0.0
    if not gaps and len(items) > 1 and rng.random() < 0.6:
        pause_at, pause = int(rng.integers(1, len(items))), float(rng.uniform(0.5, 1.0))
    t = float(rng.uniform(0.0, 0.1))
    if gaps and rng.random() < 0.5:
        t = float(rng.uniform(0.2, 1.2))
    sounds, silence = [], None
    for i, (name, length) in enumerate(items):
        if i == pause_at:
            silence = (round(t, 3), round(t + pause, 3))
            t += pause
        elif i:
            t += float(rng.uniform(0.2, 1.2) if gaps else rng.uniform(0.0, 0.1))
        short = name.startswith("~")
        sounds.append(Sound(name.lstrip("~"), round(t, 3), round(t + length, 3), short))
        t += length
    return tuple(sounds), silence, max(t + float(rng.uniform(0.0, 0.15)), 5.0), gaps


def _shape_line(
    rng: np.random.Generator, duration: float, sounds: tuple[Sound, ...] | None
) -> list[tuple[float, float]]:
    """Draw the spans of the shapes: in half of the clips aligned with the audio events."""
    n = int(rng.choice([1, 2, 3], p=[0.08, 0.5, 0.42]))
    if sounds and rng.random() < 0.5:
        borders = [s.start for s in sounds if not s.short]
        borders = [max(0.0, b + rng.uniform(-0.3, 0.3)) for b in borders] + [duration]
        spans = [(a, b) for a, b in itertools.pairwise(borders) if b - a >= 1.5]
    else:
        spans = []
        t = float(rng.uniform(0.0, 0.5))
        room = (duration - t) / n
        for _ in range(n):
            spans.append((t, t + room))
            t += room
    out = []
    for a, b in spans:
        length = min(b - a, float(rng.uniform(1.5, 4.0)) if rng.random() < 0.5 else 4.0)
        length = max(length, 1.5)
        start = a + float(rng.uniform(0, max(0.0, b - a - length)))
        out.append((round(start, 3), round(min(start + length, duration), 3)))
    return out


def _place(
    rng: np.random.Generator, span: tuple[float, float], shape: str, colour: str, w: int, h: int
) -> Shape:
    side = min(w, h)
    size = float(rng.uniform(0.18, 0.3))
    x0, x1 = (rng.uniform(size, w / side - size) for _ in range(2))
    y0, y1 = (rng.uniform(size, h / side - size) for _ in range(2))
    length = span[1] - span[0]
    slow = float(rng.uniform(0.0, 0.5))  # of the way across
    vx, vy = ((x1 - x0) * slow / length, (y1 - y0) * slow / length)
    return Shape(
        shape,
        colour,
        span[0],
        span[1],
        *(round(float(v), 4) for v in (x0, y0, vx, vy)),
        round(size, 4),
    )


def _flash(
    rng: np.random.Generator, duration: float, sounds: tuple[Sound, ...], shapes: list[Shape]
) -> Flash:
    length = float(rng.uniform(0.5, 1.0))
    long = [s for s in (*sounds, *shapes) if s.end - s.start > length + 1.0]
    if long and rng.random() < 0.75:  # well inside one event, so that questions have one answer
        host = long[int(rng.integers(len(long)))]
        start = rng.uniform(host.start + 0.5, host.end - length - 0.5)
    else:
        start = rng.uniform(0.1, duration - length - 0.1)
    start = min(max(float(start), 0.0), duration - max(length + 0.05, 1.0))  # sampled at 2 fps
    return Flash(
        str(rng.choice(DIGITS)),
        str(rng.choice(COLOURS)),
        str(rng.choice(CORNERS)),
        round(start, 3),
        round(start + length, 3),
        round(float(rng.uniform(0.19, 0.22)), 4),
        round(float(rng.uniform(0.01, 0.03)), 4),
        int(rng.integers(2)),
    )


def draw_clip(seed: int, options: WorldOptions = WorldOptions()) -> Clip:
    """Draw the clip of a seed.

    Parameters
    ----------
    seed : any non-negative integer; the test split uses those from `TEST_SEEDS` on
    options : see `WorldOptions`

    Returns
    -------
    Clip
    """
    rng = np.random.default_rng([seed, 20_26])
    mode = int(rng.choice(3, p=np.array(options.modes) / sum(options.modes)))
    w = h = 112
    if rng.random() < options.odd_sizes:
        w, h = SIZES[int(rng.integers(len(SIZES)))]
    sounds: tuple[Sound, ...] | None = None
    silence, gaps = None, False
    if mode != 1:
        sounds, silence, duration, gaps = _sound_line(rng, options)
    else:
        duration = float(rng.uniform(options.min_s, options.max_s))
    duration = round(duration, 2)
    shapes: list[Shape] | None = None
    flash = None
    if mode != 2:
        spans = _shape_line(rng, duration, sounds)
        kinds, hues = rng.permutation(SHAPES), rng.permutation(COLOURS)
        shapes = [_place(rng, s, str(kinds[i]), str(hues[i]), w, h) for i, s in enumerate(spans)]
        if rng.random() < 0.8:
            flash = _flash(rng, duration, sounds or (), shapes)
    grounds = TEST_BACKGROUNDS if options.test else TRAIN_BACKGROUNDS
    level = int(rng.choice([18, 60, 110, 165, 225]))
    tint = tuple(int(np.clip(level + rng.integers(-14, 15), 0, 255)) for _ in range(3))
    return Clip(
        seed,
        duration,
        w,
        h,
        sounds,
        tuple(shapes) if shapes is not None else None,
        flash,
        silence,
        str(rng.choice(grounds)),
        tint,
        round(float(rng.uniform(-70, -42)), 1),
        gaps,
    )
