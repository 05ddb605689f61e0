"""Notices about video and audio that were read, as sentences for the user."""

from __future__ import annotations

from collections.abc import Iterator

from omnidrop.clip.frames.packets import Damage

_SHORTFALL = 1.0  # seconds by which audio may miss its announced end without a notice
SILENCE = 1e-4  # peak amplitude below which a track counts as silent
_GAPS = 3  # most gaps that are listed


def video_notices(damage: Damage, *, start: float, taken: int, wanted: int) -> Iterator[str]:
    """Yield notices about frames that were read.

    Parameters
    ----------
    damage : Damage
        What the reader met.
    start : float
        Where the clip starts on the file's clock, in seconds.
    taken, wanted : int
        Frames that were read, and frames that were planned.
    """
    if damage.corrupt:
        yield f"Damaged parts of the video were skipped ({len(damage.corrupt)})."
    for first, last in damage.gaps[:_GAPS]:
        yield f"There are no frames between {first - start:.1f} s and {last - start:.1f} s."
    if 0 < taken < wanted:
        yield (
            f"The video ends at {(damage.ended or 0.0) - start:.2f} s, before its announced end; "
            f"{taken} of {wanted} frames are there."
        )


def audio_notices(
    damage: Damage, *, decoded: bool, loudest: float, end: float, announced: float | None
) -> Iterator[str]:
    """Yield notices about audio that was read.

    Parameters
    ----------
    damage : Damage
        What the reader met.
    decoded : bool
        Whether there was any sample.
    loudest : float
        Peak amplitude.
    end, announced : float
        Where the audio ended, and where the file says it ends (None if it does not say); seconds of
        the clip.
    """
    if damage.corrupt:
        yield f"Damaged parts of the audio were skipped ({len(damage.corrupt)})."
    if damage.not_numbers:
        yield f"{damage.not_numbers} audio samples are no numbers, and are read as silence."
    if damage.leapt:
        yield f"The audio's clock leaps by {damage.leapt:.0f} s, which are left out."
    if damage.inverted:
        yield "Audio channels are in opposite phase; one is inverted, or they would cancel out."
    if not decoded:
        yield "The audio cannot be decoded, and is left out."
        return
    if loudest < SILENCE:
        yield "The audio track is silent."
    if announced is not None and end < announced - _SHORTFALL:
        yield f"The audio ends at {end:.2f} s, before its announced end."
