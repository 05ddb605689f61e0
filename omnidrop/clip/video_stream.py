"""Which video stream of an open file is shown, and its first frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av.error

from omnidrop.clip.container import demux, open_container
from omnidrop.clip.frames.large import check_held, is_large
from omnidrop.errors import UsageError

_STILL_CODECS = {"mjpeg", "png", "bmp", "webp", "tiff", "gif", "jpegxl"}
_DEFAULT, _PICTURES = 0x1, 0x400 | 0x800  # AV_DISPOSITION_: attached_pic, timed_thumbnails
_MAX_PACKETS_TO_FIRST_FRAME = 2000


def choose_video(
    path: Path, container: Any, track: int | None, notices: list[str]
) -> tuple[Any, Any]:
    """Return the video stream and its first frame; None for each if there is none.

    Cover art does not count, unless it is asked for. Of several streams the default one is chosen,
    of several defaults the largest; one that cannot be decoded only if no other can.
    """
    streams = [stream for stream in container.streams if stream.type == "video"]
    if track is not None:
        if not track < len(streams):
            have = ", ".join(str(number) for number in range(len(streams))) or "none"
            raise UsageError(
                f"The clip has no video track {track}; it has {have}.",
                path=path,
                hint="Video tracks are numbered from 0.",
            )
        ordered = [streams[track]]
    else:
        ordered = sorted((s for s in streams if not _is_cover(container, s)), key=_rank)
    refused: list[str] = []
    for place, stream in enumerate(ordered):
        number = streams.index(stream)
        name = "The video" if len(ordered) == 1 else f"Video track {number}"
        if stream.codec_context is None:
            refused.append(f"{name} is in a format that cannot be decoded, and is left out.")
            continue
        _prepare(path, stream)
        if place:
            with open_container(path) as again:
                _prepare(path, again.streams[stream.index])
                frame = _first_frame(again, again.streams[stream.index])
        else:
            frame = _first_frame(container, stream)
        if frame is None:
            codec = stream.codec_context.name
            refused.append(f"{name} ({codec}) cannot be decoded, and is left out.")
            continue
        notices += refused
        if len(ordered) > 1:
            notices.append(
                f"The clip has {len(ordered)} video tracks; track {number} "
                f"({frame.width}x{frame.height}) is used (--video-track)."
            )
        return stream, frame
    notices += refused
    return (ordered[0] if ordered else None), None


def _prepare(path: Path, stream: Any) -> None:
    """Refuse frames that cannot be held, and decode large ones by one thread."""
    context = stream.codec_context
    if is_large(context.width, context.height):
        check_held(path, context.width, context.height)
        context.thread_count = 1


def _is_cover(container: Any, stream: Any) -> bool:
    disposition = getattr(stream, "disposition", None)  # since PyAV 14.1
    if disposition is not None:
        return "attached_pic" in str(disposition) or bool(_bits(disposition) & _PICTURES)
    return stream.codec_context is not None and (
        stream.codec_context.name in _STILL_CODECS
        and stream.frames <= 1
        and any(s.type == "audio" for s in container.streams)
    )


def _bits(disposition: Any) -> int:
    return int(getattr(disposition, "value", disposition))


def is_default(stream: Any) -> bool:
    disposition = getattr(stream, "disposition", None)
    return disposition is not None and bool(_bits(disposition) & _DEFAULT)


def _rank(stream: Any) -> tuple[bool, bool, int]:
    """Order video streams: default before others, moving before still pictures, large first."""
    context = stream.codec_context
    if context is None:
        return not is_default(stream), True, 0
    area = (context.width or 0) * (context.height or 0)
    return not is_default(stream), context.name in _STILL_CODECS, -area


def _first_frame(container: Any, stream: Any) -> Any:
    """Decode the first frame that can be decoded, or return None."""
    try:
        for count, packet in enumerate(demux(container, stream)):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                frames = []
            if frames:
                return frames[0]
            if count > _MAX_PACKETS_TO_FIRST_FRAME:
                break
    except (av.error.FFmpegError, OSError):
        pass
    return None
