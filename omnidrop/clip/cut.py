"""Write parts of a clip as a file of their own: H.264 and AAC, for any player.

The parts are decoded and encoded again, so that they begin at the frame asked for and not at the
keyframe before it. The write is atomic: to a temporary name, renamed at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av

from omnidrop.clip.clip import Clip
from omnidrop.clip.overlay import Writer
from omnidrop.errors import UsageError
from omnidrop.files import whole_file

__all__ = ["SUFFIXES", "joined", "write_cut"]

#: Containers that hold both streams.
SUFFIXES = (".mp4", ".mkv", ".mov")

Span = tuple[float, float]


def joined(spans: Sequence[Span], start: float, end: float, margin: float = 0.0) -> list[Span]:
    """Return spans in order of time, widened, limited to a clip, and joined where they meet.

    Parameters
    ----------
    spans : sequence of (float, float)
        In seconds.
    start, end : float
        Limits, in seconds.
    margin : float
        Seconds added on both sides of each.
    """
    found: list[Span] = []
    for first, last in sorted((max(a - margin, start), min(b + margin, end)) for a, b in spans):
        if first >= last:
            continue
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return found


def write_cut(
    clip: Clip,
    spans: Sequence[Span],
    target: Path,
    *,
    margin: float = 0.0,
    force: bool = False,
) -> list[Span]:
    """Write parts of a clip one after the other, picture and sound, at its own size and rate.

    Parameters
    ----------
    clip : Clip
        What it leaves out, such as its audio, is left out here too.
    spans : sequence of (float, float)
        Start and end in seconds of the file; see `joined`.
    target : Path
        Its suffix names the container: .mp4, .mkv, .mov.
    margin : float
        Seconds added on both sides of each part, within the clip.
    force : bool
        Replace an existing file.

    Returns
    -------
    list of (float, float)
        What was written, in seconds of the file.

    Raises
    ------
    UsageError
        If nothing of the clip lies in the spans, the suffix is another, the file exists, or it
        cannot be written.
    MediaError
        If the clip cannot be read.
    """
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(
            "A cut is written as video.", path=target, hint=f"End it in {', '.join(SUFFIXES)}."
        )
    parts = joined(spans, clip.start, clip.start + clip.duration, margin)
    if not parts:
        raise UsageError("No part of the clip is left to write.", path=clip.path)
    with whole_file(target, force) as draft, av.open(str(draft), "w") as out:
        writer: Writer | None = None
        for start, end in parts:
            options = replace(clip.options, start=start, end=end)
            with clip.replanned(options) as part:
                writer = writer or Writer(out, part)
                writer.write(part)
        assert writer is not None
        writer.finish()
    return parts
