"""Whether a file is truncated, judged by its container structure, without decoding.

A truncated file often plays up to its end without any error, especially in formats that carry no
duration. The user should still be told.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from omnidrop.clip.container import media_errors, open_file

_UNKNOWN = {0, 0xFFFFFFFF}  # sizes a writer stores when they are unknown


def is_cut_off(path: Path, formats: set[str]) -> bool:
    """Return whether the container structure announces data beyond the last byte.

    Parameters
    ----------
    path : Path
    formats : set of str
        libav's names of the container.

    Returns
    -------
    bool
        False also if the format does not store its length.
    """
    with open_file(path) as handle, media_errors(path):
        size = path.stat().st_size
        if formats & {"wav", "avi"}:
            return _riff_is_cut(handle, size)
        if "mov" in formats:
            return _boxes_are_cut(handle, size)
        if "mpegts" in formats:
            return all(size % packet for packet in (188, 192, 204))
    return False


def _riff_is_cut(handle: BinaryIO, size: int) -> bool:
    head = handle.read(8)
    if len(head) < 8 or head[:4] != b"RIFF":
        return False
    (length,) = struct.unpack("<I", head[4:])
    return length not in _UNKNOWN and length + 8 > size


def _boxes_are_cut(handle: BinaryIO, size: int) -> bool:
    place = 0
    while place + 8 <= size:
        handle.seek(place)
        (length,) = struct.unpack(">I", handle.read(8)[:4])
        if length == 1:
            wide = handle.read(8)
            if len(wide) < 8:
                return True
            (length,) = struct.unpack(">Q", wide)
        elif length == 0:  # up to the end of the file
            return False
        if length < 8:
            return False  # not a box; some writers leave stray bytes at the end
        place += length
    return place > size
