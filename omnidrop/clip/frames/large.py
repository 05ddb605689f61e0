"""Frames larger than any screen: made smaller while they are converted, or refused.

A frame of 16,384 x 16,384 pixels takes 400 MB as the decoder holds it, and 800 MB as RGB. Such
frames are decoded by one thread and scaled to at most `LARGE` pixels on the way to RGB, so that
only the decoder's own copies are of full size.
"""

from __future__ import annotations

import math
from pathlib import Path

from omnidrop.errors import MediaError
from omnidrop.host_memory import host_memory_free

LARGE = 1 << 25
"""Pixels of the largest frame that is converted at full size: 8K video fits."""

_BYTES = 12  # held for each pixel while a large frame is decoded: about three frames of four bytes


def is_large(width: int, height: int) -> bool:
    """Whether frames of this size are scaled while they are converted."""
    return width * height > LARGE


def reduced(width: int, height: int) -> tuple[int, int]:
    """Return the size at which a frame is converted to RGB: a whole fraction if it is large."""
    divisor = math.ceil(math.sqrt(width * height / LARGE)) if is_large(width, height) else 1
    return max(1, width // divisor), max(1, height // divisor)


def check_held(path: Path, width: int, height: int) -> None:
    """Refuse frames that do not fit into the memory that is left.

    Raises
    ------
    MediaError
    """
    if not is_large(width, height):
        return
    needed, free = _BYTES * width * height, host_memory_free()
    if needed > free:
        raise MediaError(
            f"The video is {width}x{height}; decoding it takes {needed / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB of memory are free.",
            path=path,
            hint="Make the video smaller, or leave it out (--no-video) if there is audio.",
        )
