"""What opening a media file found, so that another clip of it need not probe it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omnidrop.clip.options import ClipOptions
from omnidrop.clip.probe import AudioStream, MediaInfo

__all__ = ["Known"]


@dataclass(frozen=True, eq=False)
class Known:
    """What opening a file found.

    Attributes
    ----------
    path : Path
    options : ClipOptions
        With which it was opened.
    info : MediaInfo
    audio_info : MediaInfo or None
        Of the file that the audio comes from; the same object as `info` if that is the same file.
    track : AudioStream or None
        The audio track that was chosen.
    seconds_to_open : float
    """

    path: Path
    options: ClipOptions
    info: MediaInfo
    audio_info: MediaInfo | None
    track: AudioStream | None
    seconds_to_open: float
