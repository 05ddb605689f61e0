"""Clips that clients sent, in a private temporary folder that ends with the server.

A clip is kept under its content: sent twice, it is one file. Those that were not used for a while
are deleted, and the longest unused ones as soon as more space is needed. A clip that is deleted
while a question about it runs stays readable until that has ended.
"""

from __future__ import annotations

import base64
import binascii
import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

from omnidrop.serving.problems import Refused, wrong
from omnidrop.serving.sources import Source, opened

#: Beginning of the names of these folders in the system's folder for temporary files.
PREFIX = "omnidrop-serve-"

#: What an uploaded clip's id begins with.
MARK = "clip:"

_DATA_URL = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),", re.ASCII)
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,5}", re.ASCII)


@dataclass(frozen=True)
class Upload:
    """One clip.

    Attributes
    ----------
    id, name : str
    size : int
        Bytes.
    path : Path
    used : float
        When it was last used, in seconds of a monotonic clock.
    inline : bool
        Whether it stood in a request; such clips are not listed.
    """

    id: str
    name: str
    size: int
    path: Path
    used: float
    inline: bool = False


class Draft:
    """A clip while it is being received. Made by `Uploads.draft`."""

    def __init__(
        self, path: Path, handle: FileIO, limit: int, count: Callable[[int], None]
    ) -> None:
        self.path, self.size, self.counted = path, 0, 0
        self._handle, self._limit, self._count = handle, limit, count
        self._digest = hashlib.sha256()

    def write(self, piece: bytes) -> None:
        """Add bytes.

        Raises
        ------
        Refused
            If the clip is too large, or the disk is full.
        """
        self.size += len(piece)
        if self.size > self._limit:
            raise too_large(self._limit)
        self._count(len(piece))
        self.counted += len(piece)
        self._digest.update(piece)
        try:
            left = memoryview(piece)
            while left:
                left = left[self._handle.write(left) :]
        except OSError as problem:
            raise _disk(problem) from None

    def finish(self) -> str:
        """Return the content's name."""
        return self._digest.hexdigest()[:32]


class Uploads:
    """The clips that clients sent.

    Parameters
    ----------
    space : int
        Most bytes of all clips.
    seconds : float
        Clips that were not used for so long are deleted.
    """

    def __init__(self, space: int, seconds: float) -> None:
        remove_left_over()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.links = self.folder / "links"
        self._clips = self.folder / "clips"
        for folder in (self.links, self._clips):
            folder.mkdir(mode=0o700)
        self._lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._space, self._seconds = space, seconds
        self._held: dict[str, Upload] = {}
        self._receiving = 0
        self._guard = threading.Lock()

    def close(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    @contextmanager
    def draft(self, limit: int) -> Iterator[Draft]:
        """Receive a clip of at most `limit` bytes; what is not kept is deleted at the end."""
        handle, name = tempfile.mkstemp(prefix="part-", dir=self._clips)
        path = Path(name)
        with FileIO(handle, "wb") as file:
            draft = Draft(path, file, limit, self._count)
            try:
                yield draft
            finally:
                path.unlink(missing_ok=True)
                self._count(-draft.counted)

    def keep(self, draft: Draft, name: str, *, inline: bool = False) -> Upload:
        """Keep a clip that was received whole.

        Parameters
        ----------
        draft : Draft
        name : str
            Its name, for people; only its ending matters.
        inline : bool

        Raises
        ------
        Refused
            If it is empty, or there is no room for it.
        """
        if not draft.size:
            raise wrong("The clip is empty.", code="invalid_clip")
        mark = MARK + draft.finish()
        name = _shown(name)
        ending = Path(name).suffix
        suffix = ending.lower() if _SUFFIX.fullmatch(ending) else ""
        with self._guard:
            self._make_room(0 if mark in self._held else draft.size)
            known = self._held.get(mark)
            if known is None:
                path = self._clips / f"{mark.removeprefix(MARK)}{suffix}"
                os.replace(draft.path, path)
                known = Upload(mark, name, draft.size, path, time.monotonic(), inline)
            elif known.inline and not inline:
                known = replace(known, name=name, inline=False)
            self._held[mark] = replace(known, used=time.monotonic())
            return self._held[mark]

    def drop(self, clip: str) -> None:
        """Delete a clip."""
        with self._guard:
            self._delete(clip)

    def find(self, clip: str) -> Upload:
        """Return a clip by its id, and count this as a use.

        Raises
        ------
        Refused
            If there is none.
        """
        with self._guard:
            self._expire()
            known = self._held.get(clip)
            if known is None:
                raise no_such_clip(clip)
            self._held[clip] = replace(known, used=time.monotonic())
            return known

    def open(self, upload: Upload) -> Source:
        """Open a clip for reading."""
        try:
            handle = os.open(upload.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            raise no_such_clip(upload.id) from None
        try:
            names = (upload.path.name,)
            source = opened(handle, upload.name, self.links, self._clips, names)
        except BaseException:
            os.close(handle)
            raise
        return replace(source, key=(upload.name, upload.id))

    def listed(self) -> list[Upload]:
        """Return the clips that were uploaded, the latest used first."""
        with self._guard:
            self._expire()
            found = [one for one in self._held.values() if not one.inline]
        return sorted(found, key=lambda one: -one.used)

    @property
    def bytes(self) -> int:
        """Bytes of all clips."""
        with self._guard:
            return sum(one.size for one in self._held.values())

    def _count(self, size: int) -> None:
        """Count what is being received: all clips at a time take no more than the space either."""
        with self._guard:
            if size > 0 and self._receiving + size > self._space:
                raise Refused(429, "Too much is being sent at a time.", code="busy", retry_after=30)
            self._receiving += size

    def _make_room(self, size: int) -> None:
        self._expire()
        if size > self._space:
            raise too_large(self._space)
        while sum(one.size for one in self._held.values()) + size > self._space:
            self._delete(min(self._held.values(), key=lambda one: one.used).id)

    def _expire(self) -> None:
        before = time.monotonic() - self._seconds
        for old in [one.id for one in self._held.values() if one.used < before]:
            self._delete(old)

    def _delete(self, clip: str) -> None:
        known = self._held.pop(clip, None)
        if known is not None:
            known.path.unlink(missing_ok=True)


def from_text(uploads: Uploads, data: str, name: str, limit: int, param: str) -> Upload:
    """Keep a clip that stands in a request as base64.

    Parameters
    ----------
    uploads : Uploads
    data : str
        Base64, strictly: no white space, complete padding.
    name : str
    limit : int
        Most bytes after decoding.
    param : str
        The field of the request.

    Raises
    ------
    Refused
    """
    if len(data) > (limit + 2) // 3 * 4:
        raise too_large(limit)
    try:
        content = base64.b64decode(data.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise wrong("This is not valid base64.", param, "invalid_base64") from None
    with uploads.draft(limit) as draft:
        draft.write(content)
        return uploads.keep(draft, name, inline=True)


def from_data_url(uploads: Uploads, url: str, limit: int, param: str) -> Upload:
    """Keep a clip that stands in a request as a `data:` URL.

    What it holds is told by its content, not by the type that the URL names.

    Raises
    ------
    Refused
        If it is not base64, or names a type that is neither video nor audio.
    """
    head = _DATA_URL.match(url[:512])
    if head is None or head[2].lower().rpartition(";")[2] != "base64":
        raise wrong(
            "A data: URL must be base64, like data:video/mp4;base64,AAAA…", param, "invalid_url"
        )
    kind = head[1].lower()
    if kind and kind != "application/octet-stream" and not kind.startswith(("video/", "audio/")):
        raise wrong(f"A clip is video or audio, not {kind[:64]!r}.", param, "invalid_clip")
    return from_text(uploads, url[head.end() :], "data", limit, param)


def remove_left_over() -> None:
    """Delete the folders of servers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            if folder.is_symlink() or status.st_uid != os.getuid():
                continue
            handle = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


def too_large(limit: int) -> Refused:
    """Return the error of a clip, or request, of more than `limit` bytes."""
    return Refused(
        413, f"This is more than the {limit / 1e6:.0f} MB that are taken.", code="too_large"
    )


def no_such_clip(clip: str) -> Refused:
    """Return the error of an id that names no clip."""
    return Refused(404, f"There is no clip {clip[:80]!r}.", code="clip_not_found")


def _disk(problem: OSError) -> Refused:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refused(507, "The server's disk is full.", code="disk_full")
    return Refused(500, "The clip cannot be stored.", code="internal_error")


def _shown(name: str) -> str:
    """Return a name without folders and control characters, of bounded length."""
    last = re.split(r"[/\\]", name)[-1]
    clean = "".join(c for c in last if c.isprintable()).strip()
    stem, suffix = os.path.splitext(clean)
    return (stem[:100] + suffix[:10]) or "clip"
