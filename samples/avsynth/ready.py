"""The six sample clips `samples/*.mp4`, and questions about each."""

from __future__ import annotations

from dataclasses import dataclass

from .world import Clip, Flash, Shape, Sound


@dataclass(frozen=True)
class Ready:
    """A clip with its file name, AAC sample rate, and questions with their answers."""

    name: str
    clip: Clip
    kbits: int
    ask: tuple[tuple[str, str], ...]


def _clip(
    seed: int,
    duration: float,
    sounds: tuple | None,
    shapes: tuple | None,
    *,
    flash: Flash | None = None,
    silence: tuple[float, float] | None = None,
    size: tuple[int, int] = (112, 112),
    background: str = "plain",
    tint: tuple[int, int, int] = (60, 62, 70),
    gaps: bool = False,
) -> Clip:
    return Clip(
        seed, duration, *size, sounds, shapes, flash, silence, background, tint, -60.0, gaps
    )


def _long() -> Clip:
    """Return a clip of 64 s: each instrument in turn with a shape, one short note, one digit."""
    order = ("piano", "trumpet", "drums", "flute", "guitar", "organ", "marimba")
    shapes = ("circle", "star", "square", "triangle", "ring", "cross", "circle")
    colours = ("red", "blue", "green", "yellow", "purple", "orange", "red")
    sounds = [Sound(n, 9.1 * i, 9.1 * i + 9.0) for i, n in enumerate(order)]
    cut = sounds[3]
    sounds[3] = Sound("flute", cut.start, cut.end - 0.6)
    sounds.insert(4, Sound("violin", cut.end - 0.5, cut.end - 0.05, True))
    drawn = [
        Shape(s, c, 9.1 * i + 1.0, 9.1 * i + 8.0, 0.3, 0.5, 0.05, 0.0, 0.2)
        for i, (s, c) in enumerate(zip(shapes, colours, strict=True))
    ]
    flash = Flash("4", "yellow", "top right", 40.0, 41.0, 0.21, 0.02, 0)
    return _clip(16, 64.0, tuple(sounds), tuple(drawn), flash=flash)


def ready_clips() -> tuple[Ready, ...]:
    """Return the six sample clips."""
    duet = _clip(
        11,
        7.0,
        (Sound("piano", 0.05, 3.4), Sound("trumpet", 3.5, 6.95)),
        (
            Shape("circle", "red", 0.0, 3.4, 0.3, 0.4, 0.08, 0.05, 0.22),
            Shape("star", "blue", 3.5, 7.0, 0.7, 0.6, -0.08, -0.03, 0.22),
        ),
    )
    flash = _clip(
        12,
        8.0,
        (Sound("flute", 0.05, 4.0), Sound("drums", 4.05, 7.95)),
        (
            Shape("square", "green", 0.0, 3.9, 0.4, 0.5, 0.05, 0.0, 0.2),
            Shape("triangle", "yellow", 4.1, 8.0, 0.5, 0.5, 0.03, 0.02, 0.2),
        ),
        flash=Flash("3", "orange", "top left", 2.0, 2.8, 0.21, 0.02, 0),
        background="gradient",
    )
    pause = _clip(
        13,
        7.6,
        (Sound("organ", 0.05, 3.0), Sound("guitar", 3.8, 6.9), Sound("marimba", 6.95, 7.4, True)),
        (
            Shape("ring", "purple", 0.0, 3.4, 0.4, 0.5, 0.06, 0.0, 0.2),
            Shape("cross", "red", 3.5, 7.6, 0.5, 0.4, 0.03, 0.03, 0.2),
        ),
        silence=(3.0, 3.8),
        background="stripes",
    )
    silent = _clip(
        14,
        7.0,
        None,
        (
            Shape("triangle", "orange", 0.0, 3.4, 0.4, 0.5, 0.06, 0.0, 0.22),
            Shape("ring", "green", 3.6, 7.0, 0.5, 0.5, 0.03, 0.0, 0.22),
        ),
        flash=Flash("5", "red", "bottom right", 5.0, 5.9, 0.21, 0.02, 0),
    )
    portrait = _clip(
        15,
        7.0,
        (Sound("violin", 0.05, 3.5), Sound("organ", 3.6, 6.95)),
        (
            Shape("cross", "yellow", 0.0, 3.4, 0.4, 0.9, 0.06, 0.0, 0.22),
            Shape("square", "purple", 3.6, 7.0, 0.5, 1.2, 0.03, -0.1, 0.22),
        ),
        size=(84, 168),
    )
    return (
        Ready(
            "duet",
            duet,
            64,
            (
                ("What instrument plays first?", "piano"),
                ("What instrument plays last?", "trumpet"),
                ("What color is the circle?", "red"),
            ),
        ),
        Ready(
            "flash",
            flash,
            64,
            (
                ("Which digit flashes?", "3"),
                ("Which instrument plays while the digit flashes?", "flute"),
            ),
        ),
        Ready(
            "pause",
            pause,
            64,
            (
                ("Which instrument plays after the silence?", "guitar"),
                ("What instrument plays the short note?", "marimba"),
            ),
        ),
        Ready(
            "silent",
            silent,
            64,
            (
                ("Which shape comes first?", "triangle"),
                ("In which corner does the digit flash?", "bottom right"),
            ),
        ),
        Ready(
            "portrait",
            portrait,
            64,
            (("What instrument plays first?", "violin"), ("Which shape comes last?", "square")),
        ),
        Ready(
            "long",
            _long(),
            24,
            (
                ("What instrument plays first?", "piano"),
                ("Which instrument plays while the digit flashes?", "guitar"),
            ),
        ),
    )
