"""Shares of video and of audio, given as a pair: what the methods that print such pairs need."""

from __future__ import annotations

from typing import Any

from omnidrop.errors import UsageError
from omnidrop.pruning import checks
from omnidrop.tokens import TokenMap


def checked(field: str, value: Any) -> tuple[float, float]:
    """Return a pair of shares, of video and of audio, as a tuple; refuse anything else."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise UsageError(f"{field} must be two numbers, for video and for audio, not {value!r}.")
    for share in value:
        checks.number(field, share, low=0, high=1)
    return value[0], value[1]


def counts(tokens: TokenMap, shares: tuple[float, float]) -> tuple[int, int]:
    """Return how many video and audio tokens those shares are; at least one of either.

    A clip without tokens has none.
    """
    audio = int(tokens.audio.sum())
    video = len(tokens) - audio
    seen, heard = round(shares[0] * video), round(shares[1] * audio)
    if not seen + heard:
        seen, heard = (1, 0) if video else (0, min(audio, 1))
    return seen, heard
