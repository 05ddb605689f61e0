"""The files that a request may read: those below one folder, and those that clients uploaded.

A file is opened once, below its folder and without following a symlink on the way, and is then read
through that open file alone. So no rename or symlink that appears in between leads anywhere else.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from omnidrop.serving.problems import Refused, wrong

#: Most files that a listing of a folder shows, and most entries that are looked at for it.
LISTED, LOOKED_AT = 1000, 20_000

#: Endings of files that a listing shows.
VIDEO = (
    *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "m2ts", "mts", "flv", "wmv"),
    *("asf", "3gp", "ogv", "gif", "apng", "mxf", "y4m"),
)
AUDIO = (
    *("wav", "mp3", "m4a", "aac", "flac", "ogg", "opus", "wma", "aiff", "aif", "caf", "amr", "ac3"),
)
SUFFIXES = frozenset(f".{ending}" for ending in VIDEO + AUDIO)

_LINUX = sys.platform == "linux"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class Source:
    """An open file; a context manager.

    Attributes
    ----------
    name : str
        What the client calls it.
    key : tuple
        Equal for two sources with the same name and content.
    size : int
        Bytes.
    path : Path
        Where it is read from while it is open.
    """

    name: str
    key: tuple[object, ...]
    size: int
    path: Path
    _handle: int
    _link: Path | None = None
    _open: bool = field(default=True, repr=False)

    def close(self) -> None:
        """Close the file."""
        if not self._open:
            return
        self._open = False
        if self._link is not None:
            self._link.unlink(missing_ok=True)
        os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Root:
    """A folder below which files may be read.

    Parameters
    ----------
    folder : Path
    links : Path
        A private folder, for names of open files.
    """

    def __init__(self, folder: Path, links: Path) -> None:
        self.folder = folder.resolve(strict=True)
        self._links = links
        self._handle = os.open(self.folder, _FOLDER)

    def close(self) -> None:
        """Close the folder; open sources stay open."""
        os.close(self._handle)

    def open(self, asked: str, shown: str | None = None) -> Source:
        """Open a file.

        Parameters
        ----------
        asked : str
            A path relative to the folder, or an absolute one that lies in it. Symlinks may lead
            anywhere within the folder.
        shown : str, optional
            Name for the client, in place of the path relative to the folder.

        Raises
        ------
        Refused
            If there is no such file, or it is not one that may be read; the reply does not tell
            what exists elsewhere.
        """
        relative = self._relative(asked)
        handle = self._open(relative)
        try:
            return opened(handle, shown or "/".join(relative), self._links, self.folder, relative)
        except BaseException:
            os.close(handle)
            raise

    def names(self) -> tuple[list[str], bool]:
        """Return the media files in the folder, sorted, and whether some were left out."""
        found: list[str] = []
        looked = 0
        for folder, folders, files in os.walk(self.folder, followlinks=False):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            looked += len(files) + len(folders)
            for name in sorted(files):
                path = os.path.join(folder, name)
                if name.startswith(".") or Path(name).suffix.lower() not in SUFFIXES:
                    continue
                if os.path.islink(path) or not os.path.isfile(path):
                    continue
                found.append(os.path.relpath(path, self.folder))
            if len(found) > LISTED or looked > LOOKED_AT:
                return found[:LISTED], True
        return found, False

    def _relative(self, asked: str) -> tuple[str, ...]:
        """Return the names from the folder to the file, symlinks resolved."""
        if "\0" in asked or not asked:
            raise _nothing(asked)
        whole = os.path.join(self.folder, asked)
        if ".." in Path(asked).parts:
            raise _outside(asked)
        lexically = os.path.normpath(whole)
        if not Path(lexically).is_relative_to(self.folder):
            # An absolute path by way of a symlink to the folder itself.
            above = os.path.realpath(os.path.dirname(lexically))
            if not os.path.isabs(asked) or not Path(above).is_relative_to(self.folder):
                raise _outside(asked)
        try:
            real = Path(os.path.realpath(lexically, strict=True))
        except (OSError, ValueError) as problem:
            if isinstance(problem, OSError) and problem.errno == errno.ELOOP:
                raise _outside(asked) from None
            raise _nothing(asked) from None
        if not real.is_relative_to(self.folder) or real == self.folder:
            raise _outside(asked)
        return real.relative_to(self.folder).parts

    def _open(self, names: tuple[str, ...]) -> int:
        """Open a file step by step below the folder; a symlink on the way is an error by now."""
        shown = "/".join(names)
        held = os.dup(self._handle)
        try:
            for name in names[:-1]:
                inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=held)
                os.close(held)
                held = inner
            return os.open(names[-1], _FILE, dir_fd=held)
        except OSError as problem:
            if problem.errno in (errno.EACCES, errno.EPERM):
                raise Refused(403, f"{shown} may not be read.", code="invalid_clip") from None
            raise _nothing(shown) from None
        finally:
            os.close(held)


def opened(handle: int, name: str, links: Path, folder: Path, relative: tuple[str, ...]) -> Source:
    """Return an open file as a source.

    Parameters
    ----------
    handle : int
        Its descriptor, which the source closes.
    name : str
        What the client calls it.
    links : Path
        A private folder.
    folder : Path
    relative : tuple of str
        Names from the folder to the file.

    Raises
    ------
    Refused
        If it is no file: a folder, a pipe, a device.
    """
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        raise wrong(f"{name} is no file that can be read: a folder, a pipe or a device.")
    os.set_blocking(handle, True)
    key = (name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    path, link = folder.joinpath(*relative), None
    if _LINUX:
        # Readers open the file again by this name, and get the open file whatever lies at its path.
        suffix = path.suffix if path.suffix.isascii() and path.suffix.isprintable() else ""
        link = links / f"{secrets.token_hex(8)}{suffix[:16]}"
        link.symlink_to(f"/proc/{os.getpid()}/fd/{handle}")
        path = link
    return Source(name, key, status.st_size, path, handle, link)


def file_name(url: str) -> str:
    """Return the path that a URL of a local file, or a plain path, names.

    Raises
    ------
    Refused
        For other URLs: nothing is fetched from a network.
    """
    scheme = url.partition(":")[0].lower()
    if scheme in ("http", "https", "ftp", "rtsp", "rtmp", "s3", "gs"):
        raise wrong(
            "This server fetches nothing from a network. Upload the clip (POST /v1/clips), send it "
            "as a data: URL, or name a file below the server's folder.",
            "video_url",
            "unsupported_url",
        )
    if scheme == "file" and ":" in url:
        try:
            parts = urlsplit(url)
            host = parts.netloc
        except ValueError:
            raise wrong("This is no file: URL.", "video_url", "unsupported_url") from None
        if host not in ("", "localhost") or parts.query or parts.fragment:
            raise wrong(
                "A file: URL has three slashes and a path: file:///folder/clip.mp4.",
                "video_url",
                "unsupported_url",
            )
        return unquote(parts.path, errors="surrogateescape")
    if "://" in url:
        raise wrong(
            f"URLs of this kind are not supported: {url.partition('://')[0][:32]!r}.",
            "video_url",
            "unsupported_url",
        )
    return url


def read_part(source: Source, start: int, size: int) -> bytes:
    """Read bytes of an open file."""
    return os.pread(source._handle, size, start)


def _nothing(asked: str) -> Refused:
    shown = asked.encode("utf-8", "backslashreplace").decode()[:200]
    return Refused(404, f"There is no clip {shown!r}.", param="video_url", code="clip_not_found")


def _outside(asked: str) -> Refused:
    shown = asked.encode("utf-8", "backslashreplace").decode()[:200]
    return Refused(
        403,
        f"{shown!r} lies outside of the folder that this server reads.",
        param="video_url",
        code="outside_root",
    )
