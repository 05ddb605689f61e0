"""Small pictures of a clip at given times, as JPEG, for reports."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from omnidrop.clip.frames.packets import Damage
from omnidrop.clip.frames.reader import FrameReader
from omnidrop.clip.probe import MediaInfo

__all__ = ["Still", "stills"]


@dataclass(frozen=True)
class Still:
    """One picture.

    Attributes
    ----------
    time : float
        Seconds from the start of the file.
    width, height : int
        Pixels.
    jpeg : bytes
    """

    time: float
    width: int
    height: int
    jpeg: bytes = field(repr=False)


def stills(
    info: MediaInfo, times: Sequence[float], *, side: int = 240, quality: int = 72
) -> list[Still]:
    """Return the frames on screen at given times, made small.

    Parameters
    ----------
    info : MediaInfo
        As `probe` returns it.
    times : sequence of float
        Seconds from the start of the file, in any order; repeated times are taken once.
    side : int
        Longest side, pixels. Smaller frames are not enlarged.
    quality : int
        Of the JPEG, 1 to 95.

    Returns
    -------
    list of Still
        In order of time; without those after the last frame. Empty without video.

    Raises
    ------
    MediaError
        If the clip cannot be read.
    """
    video = info.video
    wanted = sorted({max(0.0, float(t)) for t in times})
    if video is None or not wanted:
        return []
    scale = min(1.0, side / max(video.width, video.height))
    size = max(1, round(video.width * scale)), max(1, round(video.height * scale))
    found = []
    reader = FrameReader(info.path, video, Damage())
    for number, image in reader.frames([info.start + t for t in wanted]):
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        buffer = io.BytesIO()
        picture.resize(size, Image.Resampling.LANCZOS).save(
            buffer, "JPEG", quality=quality, optimize=True
        )
        found.append(Still(wanted[number], *size, buffer.getvalue()))
    return found
