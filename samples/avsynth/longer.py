"""Clips made longer: the same events in the same order, each lasting longer.

    >>> clip = lengthened(draw_clip(7), 60.0)
    >>> clip.duration
    60.0

Every time is multiplied by the same factor, so what is true of the clip stays true, and its
questions and their answers stay as they were. An event fills the same share of the clip, and of its
tokens.
"""

from __future__ import annotations

from dataclasses import replace

from .world import Clip


def lengthened(clip: Clip, seconds: float) -> Clip:
    """Return a clip whose events are spread over another duration.

    Parameters
    ----------
    clip : Clip
        Of `world.draw_clip`; without words.
    seconds : float
        At least its own duration.

    Raises
    ------
    ValueError
        If the clip would become shorter, or has words on screen.
    """
    if seconds < clip.duration:
        raise ValueError(f"the clip lasts {clip.duration} s already")
    if clip.words:
        raise ValueError("only plain clips can be made longer")
    by = seconds / clip.duration
    sounds = clip.sounds and tuple(
        replace(s, start=s.start * by, end=s.end * by) for s in clip.sounds
    )
    shapes = clip.shapes and tuple(
        replace(s, start=s.start * by, end=s.end * by, vx=s.vx / by, vy=s.vy / by)
        for s in clip.shapes
    )
    flash = clip.flash and replace(clip.flash, start=clip.flash.start * by, end=clip.flash.end * by)
    silence = clip.silence and (clip.silence[0] * by, clip.silence[1] * by)
    return replace(
        clip, duration=seconds, sounds=sounds, shapes=shapes, flash=flash, silence=silence
    )
