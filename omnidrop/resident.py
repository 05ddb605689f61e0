"""The memory that this process holds now, what it held at most, and how much of it is files.

Linux counts a process's resident pages by kind: its own (anonymous), which only the process can
give back, and pages of files, such as libraries and mapped weights, which the system can take back
at any time and read again. It also keeps the highest sum of both, a mark that can be reset:
https://docs.kernel.org/filesystems/proc.html (statm, status, clear_refs, maps, smaps), and
https://docs.kernel.org/admin-guide/mm/pagemap.html.
Elsewhere psutil tells what is the process's own.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

import psutil

#: Where Linux describes this process.
PROC = Path("/proc/self")

#: Number of `madvise` by which a process lets go of pages (Linux).
_DONTNEED = 4

#: The line in maps and smaps that a mapping begins with, up to the file's name.
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *$")

#: Bytes of a word in pagemap, and the values of its highest byte for a page that is not resident.
_WORD, _ABSENT = 8, bytes(range(0x80))


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
    try:
        with open(PROC / "pagemap", "rb", buffering=0) as pages:
            return sum(_present(pages, *place) for place in _places(files)) * _page()
    except OSError:  # some sandboxes have the slower smaps alone
        return sum(mapping.resident for mapping in _mappings(files))


def _places(files: Collection[Path]) -> Iterator[tuple[int, int]]:
    """Yield the first address of each mapping of some files, and the one behind its last."""
    text = (PROC / "maps").read_text(encoding="utf-8", errors="replace")
    for found, _ in _found(text, files):
        yield int(found[1], 16), int(found[2], 16)


def _present(pages: RawIOBase, start: int, end: int) -> int:
    """Return how many pages between two addresses are resident.

    pagemap has a 64-bit word for each page, whose highest bit says so; other processes' pages of
    the same file do not count.
    """
    left = (end - start) // _page() * _WORD
    pages.seek(start // _page() * _WORD)
    count = 0
    while left > 0 and (words := pages.read(min(left, 1 << 18))):
        highest = words[_WORD - 1 :: _WORD] if sys.byteorder == "little" else words[::_WORD]
        count += len(highest.translate(None, _ABSENT))
        left -= len(words)
    return count


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
    try:
        text = (PROC / "smaps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for found, behind in _found(text, files):
        if (last := text.find("VmFlags:", behind)) >= 0:  # begins a mapping's last line
            yield _mapping(found, text[behind:last])


def _found(text: str, files: Collection[Path]) -> Iterator[tuple[re.Match[str], int]]:
    """Yield the mappings of some files in maps or smaps, and where the next line begins."""
    for name in {str(file.resolve()) for file in files}:
        end = -1
        while (end := text.find(f" {name}\n", end + 1)) >= 0:
            begin = text.rfind("\n", 0, end) + 1
            if (found := _MAPPING.match(text, begin, end)) is not None:
                yield found, end + len(name) + 2


def _mapping(addresses: re.Match[str], lines: str) -> _Mapping:
    """Return a mapping by the lines below its addresses."""
    sizes = dict(line.split(":", 1) for line in lines.splitlines())
    resident, own = (
        int(sizes.get(key, missing).split()[0]) * 1024
        for key, missing in (("Rss", "0"), ("Anonymous", "1"))
    )
    start, end = (int(address, 16) for address in addresses.groups())
    return _Mapping(start, end, resident, own)
