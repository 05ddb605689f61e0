"""What a person should know of a picture or a sound that was read, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from omnidrop.clip.frames.packets import Damage

_SHORTFALL = 1.0  # seconds by which a sound may miss its announced end without a word
_SILENCE = 1e-4  # no sample of a silent track is louder
_GAPS = 3  # told of, at most


def on_picture(damage: Damage, *, start: float, taken: int, wanted: int) -> Iterator[str]:
    """Yield remarks on frames that were read.

    Parameters
    ----------
    damage : Damage
        What their reader met.
    start : float
        Where the clip begins on the file's clock, in seconds.
    taken, wanted : int
        Frames that came, and that were to come.
    """
    if damage.corrupt:
        yield f"Damaged parts of the picture were skipped ({len(damage.corrupt)})."
    for first, last in damage.gaps[:_GAPS]:
        yield f"There are no frames between {first - start:.1f} s and {last - start:.1f} s."
    if 0 < taken < wanted:
        yield (
            f"The picture ends at {(damage.ended or 0.0) - start:.2f} s, before the file says it "
            f"does; {taken} of {wanted} frames are there."
        )


def on_sound(
    damage: Damage, *, heard: bool, loudest: float, end: float, said: float | None
) -> Iterator[str]:
    """Yield remarks on a sound that was read.

    Parameters
    ----------
    damage : Damage
        What its reader met.
    heard : bool
        Whether there was any sample.
    loudest : float
        Of all samples.
    end, said : float
        Where it ended, and where the file says it does, if it says so; seconds of the clip.
    """
    if damage.corrupt:
        yield f"Damaged parts of the sound were skipped ({len(damage.corrupt)})."
    if not heard:
        yield "The sound cannot be decoded, and is left out."
        return
    if loudest < _SILENCE:
        yield "The sound track is silent."
    if said is not None and end < said - _SHORTFALL:
        yield f"The sound ends at {end:.2f} s, before the file says it does."
