"""The memory that this process holds now, what it held at most, and how much of it is files.

Linux counts a process's resident pages by kind: its own (anonymous), which only the process can
give back, and pages of files, such as libraries and mapped weights, which the system can take back
at any time and read again. It also keeps the highest sum of both, a mark that can be reset:
https://docs.kernel.org/filesystems/proc.html (statm, status, clear_refs, smaps).
Elsewhere psutil tells what is the process's own.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Where Linux describes this process.
PROC = Path("/proc/self")

#: Number of `madvise` by which a process lets go of pages (Linux).
_DONTNEED = 4

#: The line in smaps that a mapping begins with, up to the file's name.
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *$")


@dataclass(frozen=True)
class Held:
    """Bytes that are resident now.

    Attributes
    ----------
    own : int
        Of the process alone.
    files : int
        Pages of files, shared memory included; 0 where the system does not tell.
    """

    own: int
    files: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.own + self.files


def held() -> Held:
    """Return what this process holds now; takes about 10 µs on Linux."""
    try:
        with open(PROC / "statm", "rb") as file:
            resident, shared = file.read().split()[1:3]
    except (OSError, ValueError):
        return Held(int(psutil.Process().memory_full_info().uss))
    page = _page()
    return Held((int(resident) - int(shared)) * page, int(shared) * page)


def _page() -> int:
    import mmap

    return mmap.PAGESIZE


def reset_mark() -> bool:
    """Set the kernel's highest mark of this process back to what is held now.

    `getrusage` and `/usr/bin/time` read the same mark.

    Returns
    -------
    bool
        False if the system has no such mark, or does not let it be reset.
    """
    try:
        with open(PROC / "clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return False
    return mark() is not None


def mark() -> int | None:
    """Return the most bytes held at once since the mark was reset; None if nobody counts them."""
    with suppress(OSError, ValueError):
        for line in (PROC / "status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def resident_of(files: Collection[Path]) -> int:
    """Return the resident bytes of files that are mapped; 0 where the system does not tell."""
    return sum(mapping.resident for mapping in _mappings(files))


def let_go(files: Collection[Path]) -> None:
    """Drop the pages of files that are mapped here and were not written to, if the system can.

    They stay in the system's cache, and are mapped again when they are next used.
    """
    found = [mapping for mapping in _mappings(files) if not mapping.own]
    if not found:
        return
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for mapping in found:
        advise(mapping.start, mapping.end - mapping.start, _DONTNEED)


@dataclass(frozen=True)
class _Mapping:
    """A file's mapping: its addresses, its resident bytes, and those of them written to."""

    start: int
    end: int
    resident: int
    own: int


def _mappings(files: Collection[Path]) -> Iterator[_Mapping]:
    """Yield the mappings of some files; a link stands for the file that it leads to.

    A process has a thousand mappings and more, so only those of the files are parsed.
    """
    names = {str(file.resolve()) for file in files}
    try:
        text = (PROC / "smaps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for name in names:
        end = -1
        while (end := text.find(f" {name}\n", end + 1)) >= 0:
            begin = text.rfind("\n", 0, end) + 1
            if (found := _MAPPING.match(text, begin, end)) is not None:
                yield _mapping(found, text[end + len(name) + 2 : text.find("VmFlags:", end)])


def _mapping(addresses: re.Match[str], lines: str) -> _Mapping:
    """Return a mapping by the lines below its addresses."""
    sizes = dict(line.split(":", 1) for line in lines.splitlines())
    resident, own = (
        int(sizes[key].split()[0]) * 1024 if key in sizes else None for key in ("Rss", "Anonymous")
    )
    start, end = (int(address, 16) for address in addresses.groups())
    return _Mapping(start, end, resident or 0, 1 if own is None else own)
