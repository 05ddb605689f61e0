"""Opening a media file, and only that file.

Every file goes through `open_container`. It is checked first: does it exist, is it a regular file,
is it empty, does it only refer to other files. Then libav gets an open file object, a list of
self-contained formats, and no protocols, so that no playlist, reference movie or image sequence
can make it read another file or the network.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error
import av.logging

from omnidrop.errors import MediaError

# libav would log to stderr; notices and errors carry the same, and a library prints nothing.
av.logging.set_level(None)

FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mpegtsraw,mpegvideo,gif,apng,flv,asf,ogg,wav,w64,flac,mp3,aac,"
    "aiff,caf,au,amr,amrnb,amrwb,ac3,eac3,dts,h264,hevc,vvc,m4v,av1,obu,ivf,mxf,nut,wv,ape,tta,dv,"
    "yuv4mpegpipe,oma,voc,mpc,mpc8,tak,truehd,loas,latm,swf,wtv,rm,vc1,mjpeg"
)
"""Allowed demuxers: those whose media lies in the file itself."""

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+:")

_PLAYLISTS = (
    (re.compile(rb"#EXTM3U"), "an HLS playlist"),
    (re.compile(rb"ffconcat version"), "a list of files to join"),
    (re.compile(rb"file\s+['\"/\w]"), "a list of files to join"),
    (re.compile(rb"(<\?xml.*?)?<MPD\b", re.S), "a DASH manifest"),
    (re.compile(rb"(<\?xml.*?)?<(smil|asx|SmoothStreamingMedia)\b", re.S | re.I), "a playlist"),
    (re.compile(rb"\[playlist\]|\[reference\]|rtsptext", re.I), "a playlist"),
    (re.compile(rb"v=0\r?\n(.*\n)*?[om]="), "a description of a network stream"),
)

_IMAGES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\x01\0", "icon"),
    (b"8BPS", "Photoshop"),
    (b"qoif", "QOI"),
)
_NEXT_PICTURE = re.compile(rb"\xff\xd9(?:\r\n|\0*)\xff\xd8\xff")  # an end, then a beginning
_STILL_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif")

_ONLY_LOCAL = "Only the named local file is ever read; download or join the media into one file."


class _Reader:
    """A file object that tells libav only the suffix of the file's name.

    The suffix helps to recognise raw streams; the name itself may have no valid encoding.

    At most one exception leaves it: PyAV keeps an exception of a callback until libav returns, and
    prints the traceback of the one it kept if another follows.
    """

    def __init__(self, path: Path, handle: BinaryIO) -> None:
        ending = path.suffix if path.suffix.isascii() and path.suffix.isprintable() else ""
        self.name = f"clip{ending}"
        self._handle = handle
        self._failed = False
        self.tell = handle.tell
        self.close = handle.close

    def read(self, size: int) -> bytes:
        if self._failed:
            return b""
        try:
            return self._handle.read(size)
        except OSError:
            self._failed = True
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        """Return the new position, or -1 where damaged offsets lead outside any file."""
        try:
            return self._handle.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1

    def seekable(self) -> bool:
        return True


def as_path(path: object) -> Path:
    """Return a str, bytes or Path as a Path, whatever bytes it contains."""
    return Path(os.fsdecode(path))  # type: ignore[arg-type]


def open_file(path: Path) -> BinaryIO:
    """Open a regular, non-empty local file for reading.

    Raises
    ------
    MediaError
        If it is missing, a folder, a device or a pipe, empty, or not readable.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise MediaError(
                "This is a folder, not a media file.", path=path, hint="Name a file in it."
            )
        if not stat.S_ISREG(status.st_mode):
            raise MediaError(
                "This is a device, a pipe or a socket, not a file.",
                path=path,
                hint="Save the media as a file first.",
            )
        if not status.st_size:
            raise MediaError(
                "The file is empty.", path=path, hint="Was it copied or downloaded completely?"
            )
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        if _URL.match(str(path)):
            raise MediaError(
                "This names a stream or a protocol, not a local file.", path=path, hint=_ONLY_LOCAL
            ) from None
        raise MediaError(
            "There is no such file.", path=path, hint="Check the name and the current folder."
        ) from None
    except PermissionError:
        raise MediaError(
            "The file may not be read.", path=path, hint="Check its permissions and its owner."
        ) from None
    except OSError as error:
        raise MediaError(
            f"The file cannot be opened ({error.strerror}).",
            path=path,
            hint="Check the name and the disk.",
        ) from None
    except ValueError:  # a NUL in the name
        raise MediaError("This is no file name.", path=path, hint="Check the name.") from None


def refuse_playlists_and_images(path: Path, head: bytes) -> None:
    """Refuse what is clearly not a clip: playlists, still images, plain text.

    Parameters
    ----------
    head : bytes
        The first few kilobytes of the file.

    Raises
    ------
    MediaError
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, kind in _PLAYLISTS:
        if pattern.match(text):
            raise MediaError(
                f"This is {kind}: it refers to other files and holds no media of its own.",
                path=path,
                hint=_ONLY_LOCAL,
            )
    image = next((kind for magic, kind in _IMAGES if head.startswith(magic)), None)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        image = "WebP"
    if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
        image = "HEIF or AVIF"
    if image == "PNG" and b"acTL" in head:  # an animated PNG is a clip
        image = None
    if image:
        raise MediaError(
            f"This is a still image ({image}), not a clip.",
            path=path,
            hint="OmniDrop answers about video and audio; make a clip of it, or name another file.",
        )
    if not head.startswith(b"YUV4MPEG2") and _is_text(head):
        raise MediaError(
            "The file holds text, whatever its name says.",
            path=path,
            hint="Name a video or audio file.",
        )


def _is_motion_jpeg(path: Path, handle: BinaryIO) -> bool:
    """Whether a file that begins as a JPEG picture holds many, one behind the other.

    Photos may hold up to three: a depth map, the same in HDR.
    """
    needed = 1 if path.suffix.lower() in (".mjpeg", ".mjpg") else 3
    handle.seek(0)
    found, rest = 0, b""
    for _ in range(_BLOCKS):
        block = handle.read(_BLOCK)
        if not block:
            break
        found += len(_NEXT_PICTURE.findall(rest + block))
        if found >= needed:
            return True
        rest = block[-4:]  # shorter than the pattern, so that nothing is counted twice
    return False


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(letter.isprintable() or letter in "\r\n\t\f" for letter in text)


@contextmanager
def media_errors(path: Path) -> Iterator[None]:
    """Convert libav's errors into a MediaError about this file."""
    try:
        yield
    except (av.error.FFmpegError, UnicodeError, OverflowError) as error:
        raise MediaError(describe(error), path=path, hint=_remedy(error)) from error
    except OSError as error:
        what = error.strerror or type(error).__name__
        raise MediaError(
            f"Reading the file failed ({what}).", path=path, hint="Check the disk and the file."
        ) from error


def describe(error: Exception) -> str:
    """Return what libav's error means, as a sentence."""
    if isinstance(error, (av.error.InvalidDataError, av.error.EOFError)):
        return "This is no media file that can be read: its contents are damaged or cut short."
    if getattr(error, "errno", None) == errno.EINVAL:
        return "This kind of file is not supported, or it refers to other files."
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"The file cannot be read as media ({text})."


def _remedy(error: Exception) -> str:
    if getattr(error, "errno", None) == errno.EINVAL:
        return "Convert it to mp4, mkv, webm, mov, avi, ts or gif, or to wav, flac, mp3 or ogg."
    return "Play it to see whether it is whole; an mp4 that was never finished cannot be opened."


@contextmanager
def open_container(path: Path) -> Iterator[Any]:
    """Open a media file.

    Parameters
    ----------
    path : Path

    Yields
    ------
    av.container.InputContainer

    Raises
    ------
    MediaError
        If it is not a media file, or refers to other files.
    """
    with open_file(path) as handle:
        with media_errors(path):
            head = handle.read(8192)
            pictures = head.startswith(b"\xff\xd8\xff") and _is_motion_jpeg(path, handle)
            handle.seek(0)
        if not pictures:
            refuse_playlists_and_images(path, head)
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide"):
            options |= {"enable_drefs": "0", "use_absolute_path": "0"}
        extra: dict[str, Any] = {}
        if int(av.__version__.split(".")[0]) < 19:  # the default since 19, where the option is gone
            extra["metadata_errors"] = "replace"
        if pictures:
            extra["format"] = "mjpeg"
        with media_errors(path):
            container = av.open(
                _Reader(path, handle),
                "r",
                container_options=options,  # `options` would be copied for streams not yet known
                buffer_size=1 << 18,
                **extra,
            )
        try:
            yield container
        finally:
            container.close()


def demux(container: Any, *streams: Any) -> Iterator[Any]:
    """Yield the packets of some streams, then an empty packet for each, which flushes its decoder.

    Some formats announce streams only while they are read. PyAV does not list those, and fails with
    an IndexError when it comes to their empty packets, after those of the streams that it lists.
    """
    try:
        yield from container.demux(*streams)
    except IndexError:
        return


_TRIES = 50  # damaged packets in a row before the rest is given up


def decoded_audio(
    container: Any,
    stream: Any,
    on_damage: Callable[[], None] = lambda: None,
    correct: Callable[[Any], None] | None = None,
) -> Iterator[Any]:
    """Decode an audio track.

    ``on_damage`` is called for each damaged packet, which is skipped; ``correct`` may change the
    times of each packet before it is decoded.
    """
    packets = demux(container, stream)
    failures = 0
    while failures < _TRIES:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            if correct is not None:
                correct(packet)
            frames = packet.decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            on_damage()
            failures += 1
            packets = demux(container, stream)
            continue
        failures = 0
        yield from (frame for frame in frames if frame.samples and frame.sample_rate)


_BLOCK, _BLOCKS = 1 << 20, 64


def hash_file(digest: Any, path: Path) -> None:
    """Add a file's contents to a hashlib digest.

    Of files above 64 MiB only the size, the time of the last modification and 64 blocks are hashed.
    """
    with open_file(path) as handle, media_errors(path):
        status = path.stat()
        digest.update(f"{status.st_size}|".encode())
        if status.st_size <= _BLOCK * _BLOCKS:
            while block := handle.read(_BLOCK):
                digest.update(block)
            return
        digest.update(f"{status.st_mtime_ns}|".encode())
        for number in range(_BLOCKS):
            handle.seek((status.st_size - _BLOCK) * number // (_BLOCKS - 1))
            digest.update(handle.read(_BLOCK))
