"""When the evidence of a question is in its clip, as it follows from how the clip was made."""

from __future__ import annotations

from .questions import Fact
from .world import Clip

COUNTING = ("s_count", "p_count", "s_said_count")
"""Kinds of questions whose answer needs every event of the clip."""


def spans(clip: Clip, fact: Fact) -> tuple[tuple[float, float], ...]:
    """Return when the answer to a question can be seen or heard.

    A question of order has two spans, one for each event. A question of what happens during
    something else has the span of that. Two kinds of questions have none: those whose answer is
    that something is absent, and those that count, since their evidence is everywhere.

    Parameters
    ----------
    clip : Clip
    fact : Fact
        Of this clip.

    Returns
    -------
    tuple of (float, float)
        Start and end in seconds.
    """
    if fact.kind in COUNTING:
        return ()
    sounds, shapes, flash = clip.sounds or (), clip.shapes or (), clip.flash
    found: list[tuple[float, float]] = []
    for kind, i in fact.look:
        if kind == "s":
            found.append((sounds[i].start, sounds[i].end))
        elif kind == "p":
            found.append((shapes[i].start, shapes[i].end))
        elif kind == "q" and clip.silence is not None:
            found.append(clip.silence)
        elif kind == "w":
            found.append((clip.words[i].start, clip.words[i].end))
        elif kind == "v":
            found.append((clip.speech[i].start, clip.speech[i].end))
        elif kind in "dfg" and flash is not None:
            found.append((flash.start, flash.end))
    return tuple((round(start, 3), round(min(end, clip.duration), 3)) for start, end in found)
