"""How many recordings a Matroska or WebM file holds, one behind the other.

libav reads two joined Matroska files as one, and stops before the third. Only the headers at the
top level are read here (https://www.rfc-editor.org/rfc/rfc8794, section 6, and RFC 9559).
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_EBML = 0x1A45DFA3
#: Top-level elements that are looked at.
_MOST = 10_000
#: Recordings that libav reads.
READ = 2


def recordings(path: Path) -> int:
    """Return the number of recordings in a file; 1 where it cannot be told.

    Parameters
    ----------
    path : Path
        A Matroska or WebM file.
    """
    count = 0
    try:
        with path.open("rb") as handle:
            for _ in range(_MOST):
                number, size = _number(handle, marked=True), _number(handle)
                if number is None:
                    break
                count += number == _EBML
                if size is None:  # of a live stream; its end is not known
                    break
                handle.seek(size, 1)
    except (OSError, ValueError, OverflowError):
        pass
    return max(count, 1)


def _number(handle: BinaryIO, *, marked: bool = False) -> int | None:
    """Read a number of variable length; None at the end of the file, or if it says "unknown".

    Parameters
    ----------
    handle : file
    marked : bool
        Keep the bit that marks the length, as element ids do.
    """
    first = handle.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = handle.read(length - 1)
    if len(rest) < length - 1:
        return None
    value = int.from_bytes(first + rest, "big")
    if marked:
        return value
    value &= (1 << 7 * length) - 1
    return None if value == (1 << 7 * length) - 1 else value
