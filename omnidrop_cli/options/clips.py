"""Clips as people name them: files, folders of files, and what is no local file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from omnidrop.errors import MediaError, UsageError, did_you_mean, printable

#: Suffixes by which a folder's files are taken as clips; a file that is named may have any.
VIDEO = frozenset((
    ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg",
    ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
))  # fmt: skip
AUDIO = frozenset((
    ".aac", ".ac3", ".aif", ".aiff", ".amr", ".flac", ".m4a", ".mka", ".mp3", ".oga", ".ogg",
    ".opus", ".wav", ".wma",
))  # fmt: skip

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,3}(?=[^/])", re.IGNORECASE)
#: Hosts whose pages hold a video that yt-dlp fetches, whatever the address ends in.
_PAGES = re.compile(r"(^|\.)(youtube\.com|youtu\.be|vimeo\.com|tiktok\.com|twitch\.tv)$")


def is_clip_name(name: str) -> bool:
    """Return whether a name ends like that of a media file."""
    return os.path.splitext(name)[1].lower() in VIDEO | AUDIO


def is_url(text: str) -> bool:
    """Return whether text is an address such as https://host/clip.mp4, and no local file."""
    return _URL.match(text) is not None and not os.path.exists(text)


def url_error(text: str) -> UsageError:
    """Return the error for an address in place of a clip; its hint fetches the clip first."""
    from shlex import quote

    found = _URL.match(text)
    assert found is not None
    scheme, rest = found[1].lower(), text[found.end() :]
    if scheme == "file":
        return UsageError(
            "This is a URL, and a clip is named by its path.",
            path=text,
            hint=f"Type: {quote('/' + rest.lstrip('/'))}",
        )
    url = f"{scheme}://{rest}"  # a Path has made one slash of two
    where = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, _, path = where.partition("/")
    suffix = os.path.splitext(path)[1].lower()
    if scheme not in ("http", "https", "ftp"):
        hint = "Copy the file to this machine first."
    elif suffix in VIDEO | AUDIO and not _PAGES.search(host.lower()):
        name = quote(os.path.basename(path))
        hint = f"Fetch it first: curl -L -o {name} {quote(url)}"
    else:
        hint = f"Fetch it first: yt-dlp -S ext -o clip.mp4 {quote(url)}"
    return UsageError(
        "This is a URL, and nothing is fetched: a clip is a local file.",
        path=url,
        hint=hint,
    )


def no_such_file(path: Path) -> MediaError:
    """Return the error for a clip that is not there; its hint names a clip with a similar name."""
    names: list[str] = []
    with suppress(OSError, ValueError):
        names = [name for name in os.listdir(path.parent) if is_clip_name(name)]
    near = did_you_mean(path.name[:200], map(printable, names), cutoff=0.75)
    return MediaError("There is no such file.", path=path, hint=near.strip() or "Check the path.")


def expand_folders(clips: Iterable[Path], *, recursive: bool) -> tuple[list[Path], list[str]]:
    """Put the media files of each folder in its place.

    Parameters
    ----------
    clips : iterable of Path
    recursive : bool
        Whether folders below a folder count.

    Returns
    -------
    clips : list of Path
        Files of a folder in the order of their names, each once; what is no folder as it was.
    notices : list of str
        One for each folder that holds sound files alone.

    Raises
    ------
    MediaError
        If a folder holds no media file, or cannot be read.
    """
    found: list[Path] = []
    of_folders: set[Path] = set()
    notices = []
    for clip in clips:
        if not os.path.isdir(clip):
            if clip not in of_folders:
                found.append(clip)
            continue
        inside = [path for path in _files(clip, recursive) if is_clip_name(path.name)]
        if not inside:
            raise _no_clips(clip, recursive)
        if not any(path.suffix.lower() in VIDEO for path in inside):
            files = "1 sound file" if len(inside) == 1 else f"{len(inside)} sound files"
            notices.append(f"{printable(clip)} holds no video: {files} used.")
        found += [path for path in inside if path not in found]
        of_folders.update(inside)
    return found, notices


def _files(folder: Path, recursive: bool) -> Iterator[Path]:
    """Yield the files of a folder by name, hidden ones left out; then those of each below."""

    def refuse(problem: OSError) -> None:
        raise MediaError(
            f"This folder cannot be read ({problem.strerror}).",
            path=problem.filename or folder,
            hint="Check its permissions.",
        ) from problem

    for where, below, names in os.walk(folder, onerror=refuse):
        below[:] = sorted(name for name in below if recursive and not name.startswith("."))
        yield from (Path(where, name) for name in sorted(names) if not name.startswith("."))


def _no_clips(folder: Path, recursive: bool) -> MediaError:
    deeper = 0
    if not recursive:
        deeper = sum(is_clip_name(path.name) for path in _files(folder, True))
    if deeper:
        clips = "is 1 clip" if deeper == 1 else f"are {deeper} clips"
        hint = f"There {clips} in the folders below: add --recursive."
    else:
        hint = "Name a folder with clips such as .mp4 or .wav, or name the files."
    files = sum(1 for _ in _files(folder, recursive))
    what = f"none of its {files} files is" if files > 1 else "it has no file that is"
    return MediaError(f"No clip in this folder: {what} video or audio.", path=folder, hint=hint)
