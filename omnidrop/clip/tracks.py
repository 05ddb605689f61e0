"""Which video and which audio track of a file is meant, where it has several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from omnidrop.clip.audio import audio_blocks
from omnidrop.clip.frames.packets import Damage
from omnidrop.clip.probe import AudioStream, MediaInfo

_LISTENED = 20.0  # seconds that a track is listened to, at each of two places
_SILENCE = 1e-4  # peak amplitude below which it counts as silent


def audible_track(info: MediaInfo, start: float, rate: int) -> AudioStream:
    """Return the audio track that a player would choose, unless it is silent and another is not.

    Parameters
    ----------
    info : MediaInfo
        With at least one audio track.
    start : float
        Seconds of the clip from which on it is used.
    rate : int
        Samples per second to decode to.

    Notes
    -----
    Tracks marked as default come first, then those behind the video in a broadcast of several
    programmes, then the order of the file. A file with one track is not read.
    """
    programme = info.video.index if info.video is not None and info.format == "mpegts" else -1
    ordered = sorted(info.audio, key=lambda t: (not t.default, t.index < programme, t.index))
    if len(ordered) > 1:
        for track in ordered:
            if _is_audible(info, track, start, rate):
                return track
    return ordered[0]


def _is_audible(info: MediaInfo, track: AudioStream, start: float, rate: int) -> bool:
    places: Sequence[float] = (start, (start + info.duration) / 2)
    for place in places:
        blocks: Any = audio_blocks(
            info.path,
            track,
            file_format=info.format,
            alone=False,
            origin=info.start + place,
            length=_LISTENED,
            rate=rate,
            damage=Damage(),
        )
        if any(float(np.abs(block).max(initial=0.0)) >= _SILENCE for block in blocks):
            return True
    return False
