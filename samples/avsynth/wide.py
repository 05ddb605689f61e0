"""Wider worlds: clips of up to a minute, things at the same time, words on screen, spoken words.

`world.draw_clip` draws one thing at a time and clips of some ten seconds; its clips stay as they
are. Here two instruments or two shapes may overlap, never three. They begin and end in the same
order, so that "first" and "last" have one meaning. Overlapping shapes are side by side, and a word
has a band of its own above or below them. Up to four words are said, one after another, most of
them over the instruments. In half of the clips that show and say words, one word is both.

    >>> clip = draw_wide(7, WideOptions(max_s=60))
    >>> [s.instrument for s in clip.sounds], [w.text for w in clip.words]
    >>> [(said.text, said.start, said.voice) for said in clip.speech]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .speech import HEIGHTS, seconds, voices
from .world import (
    COLOURS,
    CORNERS,
    DIGITS,
    INSTRUMENTS,
    SHAPES,
    TEST_BACKGROUNDS,
    TRAIN_BACKGROUNDS,
    WORDS,
    Clip,
    Flash,
    Said,
    Shape,
    Sound,
    Word,
)

MAX_SOUNDS, MAX_SHAPES, MAX_SAID = 6, 5, 4
SHORTEST_S = 2.4
"""Shortest long event, in seconds."""
APART_S = 0.6
"""Shortest time between two spoken words."""
ROOM_S = 2.5
"""Shortest part of a clip that a spoken word has for itself; in it, a brief note leaves a place."""
PAUSE_S = 0.1
"""Silence before and after a word that is said in a pause of the instruments."""

Span = tuple[float, float]


@dataclass(frozen=True)
class WideOptions:
    """How wide clips are drawn.

    Attributes
    ----------
    modes : probabilities of (audio and video, video only, audio only)
    min_s, max_s : shortest and longest clip in seconds, within 6 and 60
    overlap : probability that an event begins before the one before it ends
    words : probability that words are shown on screen, in clips with video
    spoken : probability that words are said, in clips with audio; without, clips are the same but
        for the speech, and the pause that some words are said in
    test : whether to draw the backgrounds and the voices that are kept for the test
    """

    modes: tuple[float, float, float] = (0.7, 0.15, 0.15)
    min_s: float = 10.0
    max_s: float = 60.0
    overlap: float = 0.5
    words: float = 0.6
    spoken: float = 0.6
    test: bool = False

    def __post_init__(self) -> None:
        """Check the lengths and probabilities."""
        if not 6 <= self.min_s <= self.max_s <= 60:
            raise ValueError(f"lengths of {self.min_s} to {self.max_s} s are not within 6 to 60 s")
        for name in ("overlap", "words", "spoken"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, {getattr(self, name)} is not")


def _spans(rng: np.random.Generator, duration: float, most: int, overlap: float) -> list[Span]:
    """Draw spans that fill a clip in order; neighbours overlap or have a short gap.

    Neighbours overlap by 1.2 s at least, and by less than half of either, so never three at once.
    """
    count = int(np.clip(round(duration / rng.uniform(3.5, 9.0)), 2, most))
    count = min(count, int(duration / SHORTEST_S))
    weights = rng.dirichlet(np.full(count, 4.0))
    lengths = SHORTEST_S + (duration - count * SHORTEST_S) * weights
    ends = np.cumsum(lengths)
    spans = [(float(e - n), float(e)) for n, e in zip(lengths, ends, strict=True)]
    for i in range(1, count):
        (a, b), (c, d) = spans[i - 1], spans[i]
        room = min(b - a, d - c) * 0.45
        if rng.random() < overlap and room >= 1.2:
            shared = float(rng.uniform(1.2, min(3.0, room + 0.01)))
            spans[i - 1], spans[i] = (a, b + shared / 2), (c - shared / 2, d)
        else:
            spans[i - 1] = (a, b - float(rng.uniform(0.0, 0.15)))
    return [(round(a, 3), round(min(b, duration), 3)) for a, b in spans]


def _sounds(rng: np.random.Generator, duration: float, overlap: float) -> tuple[Sound, ...]:
    """Draw long sounds, and in some clips one brief note between two that do not overlap."""
    spans = _spans(rng, duration, MAX_SOUNDS, overlap)
    names = [str(n) for n in rng.permutation(INSTRUMENTS)]
    sounds = [Sound(names[i], a, b) for i, (a, b) in enumerate(spans)]
    apart = [i for i in range(1, len(spans)) if spans[i - 1][1] <= spans[i][0]]
    if apart and rng.random() < 0.6:
        at = apart[int(rng.integers(len(apart)))]
        length = float(rng.uniform(0.3, 0.5))
        before, after = sounds[at - 1], sounds[at]
        start = after.start - length / 2
        end = round(start + length, 3)
        sounds[at - 1] = Sound(before.instrument, before.start, round(min(before.end, start), 3))
        sounds[at] = Sound(after.instrument, round(end + 0.05, 3), after.end)
        sounds.insert(at, Sound(names[len(spans)], round(start, 3), end, True))
    return tuple(sounds)


def _shapes(rng: np.random.Generator, duration: float, overlap: float) -> list[Shape]:
    """Draw shapes: alternately in the left and the right half, clear of the words' bands."""
    kinds, hues = rng.permutation(SHAPES), rng.permutation(COLOURS)
    out = []
    left = bool(rng.integers(2))
    for i, (a, b) in enumerate(_spans(rng, duration, MAX_SHAPES, overlap)):
        x = float(rng.uniform(0.24, 0.26)) + (0.0 if left else 0.5)
        y0, y1 = (float(rng.uniform(0.45, 0.55)) for _ in range(2))
        speed = (y1 - y0) / (b - a)
        size = float(rng.uniform(0.16, 0.2))
        place = (round(x, 4), round(y0, 4), 0.0, round(speed, 6), round(size, 4))
        out.append(Shape(str(kinds[i]), str(hues[i]), a, b, *place))
        left = not left
    return out


def _flash(rng: np.random.Generator, duration: float) -> Flash:
    start = float(rng.uniform(0.5, duration - 2.0))
    return Flash(
        str(rng.choice(DIGITS)),
        str(rng.choice(COLOURS)),
        str(rng.choice(CORNERS)),
        round(start, 3),
        round(start + float(rng.uniform(0.6, 1.2)), 3),
        round(float(rng.uniform(0.17, 0.19)), 4),
        0.01,
        int(rng.integers(2)),
    )


def _words(rng: np.random.Generator, duration: float, flash: Flash | None) -> tuple[Word, ...]:
    """Draw one or two words that are shown for 1.5 to 3 s, away from the digit's side."""
    count = 2 if duration >= 12 and rng.random() < 0.5 else 1
    texts = rng.permutation(WORDS)
    if flash is None:
        band = "top" if rng.random() < 0.5 else "bottom"
    else:
        band = "bottom" if "top" in flash.corner else "top"
    out = []
    room = duration / count
    for i in range(count):
        length = float(rng.uniform(1.5, 3.0))
        start = i * room + float(rng.uniform(0.2, room - length - 0.6))
        out.append(Word(str(texts[i]), round(start, 3), round(start + length, 3), band))
    return tuple(out)


def _said_texts(rng: np.random.Generator, duration: float, shown: tuple[Word, ...]) -> list[str]:
    """Draw one to four different words; in half of the clips that show any, one of those."""
    count = min(int(rng.integers(1, MAX_SAID + 1)), int(duration / ROOM_S))
    texts = [str(t) for t in rng.permutation(WORDS) if t not in [w.text for w in shown]][:count]
    if shown and rng.random() < 0.5:
        texts[int(rng.integers(count))] = shown[int(rng.integers(len(shown)))].text
    return texts


def _start(
    rng: np.random.Generator, low: float, high: float, length: float, short: Sound | None
) -> float:
    """Draw when a word starts, within two bounds, so that it is not said over the brief note."""
    spans = [(low, high)]
    if short:
        spans = [(low, min(high, short.start - length - 0.05)), (max(low, short.end + 0.05), high)]
        spans = [(a, b) for a, b in spans if b > a]
    at = float(rng.uniform(0, sum(b - a for a, b in spans)))
    for a, b in spans[:-1]:
        if at < b - a:
            return a + at
        at -= b - a
    return spans[-1][0] + at


def _speech(
    rng: np.random.Generator,
    duration: float,
    short: Sound | None,
    shown: tuple[Word, ...],
    test: bool,
) -> tuple[Said, ...]:
    """Draw spoken words, each in its part of the clip, so that there is time between them."""
    texts = _said_texts(rng, duration, shown)
    room = duration / len(texts)
    out = []
    for i, text in enumerate(texts):
        choices = voices(test, HEIGHTS[int(rng.integers(2))])
        voice = choices[int(rng.integers(len(choices)))].name
        shift = round(float(rng.uniform(-1.5, 1.5)), 2)
        length = seconds(voice, text, shift)
        low, high = i * room + APART_S / 2, (i + 1) * room - length - APART_S / 2
        start = round(_start(rng, low, high, length, short), 3)
        out.append(Said(text, start, round(start + length, 3), voice, shift))
    return tuple(out)


def _pause(
    rng: np.random.Generator,
    duration: float,
    sounds: tuple[Sound, ...],
    speech: tuple[Said, ...],
) -> tuple[tuple[Sound, ...], tuple[Said, ...]]:
    """Move one word to where an instrument gives way to the next, and make a pause for it there."""
    room = duration / len(speech)
    found = []
    for i in range(1, len(sounds)):
        before, after = sounds[i - 1], sounds[i]
        if before.short or after.short or before.end > after.start:
            continue
        k = int(after.start / room)
        said = speech[k]
        length = said.end - said.start
        start = round(after.start - length / 2, 3)
        end = round(start + length, 3)
        if start < k * room + APART_S / 2 or end > (k + 1) * room - APART_S / 2:
            continue
        cut = Sound(before.instrument, before.start, round(min(before.end, start - PAUSE_S), 3))
        late = Sound(after.instrument, round(end + PAUSE_S, 3), after.end)
        if min(s.end - s.start for s in (cut, late)) >= 1.5:
            moved = Said(said.text, start, end, said.voice, said.shift)
            found.append(
                (
                    (*sounds[: i - 1], cut, late, *sounds[i + 1 :]),
                    (*speech[:k], moved, *speech[k + 1 :]),
                )
            )
    return found[int(rng.integers(len(found)))] if found else (sounds, speech)


def draw_wide(seed: int, options: WideOptions = WideOptions()) -> Clip:
    """Draw the wide clip of a seed, which has nothing to do with `draw_clip`'s of that seed.

    Parameters
    ----------
    seed : any non-negative integer; a test uses those from `TEST_SEEDS` on
    options : see `WideOptions`

    Returns
    -------
    Clip
        Of 112 x 112 pixels. Its `gaps` is true: no silence is asked about.
    """
    rng = np.random.default_rng([seed, 20_27])
    mode = int(rng.choice(3, p=np.array(options.modes) / sum(options.modes)))
    duration = round(float(rng.uniform(options.min_s, options.max_s)), 2)
    sounds = _sounds(rng, duration, options.overlap) if mode != 1 else None
    shapes, flash, words = None, None, ()
    if mode != 2:
        shapes = tuple(_shapes(rng, duration, options.overlap))
        flash = _flash(rng, duration) if rng.random() < 0.6 else None
        if rng.random() < options.words:
            words = _words(rng, duration, flash)
    speech: tuple[Said, ...] = ()
    voiced = np.random.default_rng([seed, 20_28])  # apart: what else is drawn stays as it is
    if sounds is not None and voiced.random() < options.spoken:
        short = next((s for s in sounds if s.short), None)
        speech = _speech(voiced, duration, short, words, options.test)
        if voiced.random() < 0.6:
            sounds, speech = _pause(voiced, duration, sounds, speech)
    level = int(rng.choice([18, 60, 110, 165, 225]))
    tint = tuple(int(np.clip(level + rng.integers(-14, 15), 0, 255)) for _ in range(3))
    return Clip(
        seed,
        duration,
        112,
        112,
        sounds,
        shapes,
        flash,
        None,
        str(rng.choice(TEST_BACKGROUNDS if options.test else TRAIN_BACKGROUNDS)),
        tint,
        round(float(rng.uniform(-70, -42)), 1),
        True,
        words,
        speech,
        True,
    )
