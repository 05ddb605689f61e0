"""Probe a media file: streams, duration, rotation, rate, and damage.

Headers are trusted in large files only. If a duration is missing or merely estimated, and in files
of up to 64 MiB, all packets are read instead. The first frame is decoded, because only that shows
the true size, rotation and bit depth, and whether the video can be decoded at all.
"""

from __future__ import annotations

import itertools
import math
import re
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from omnidrop.clip.audio_layout import AudioLayout
from omnidrop.clip.container import (
    as_path,
    decoded_audio,
    demux,
    media_errors,
    open_container,
)
from omnidrop.clip.frames.large import check_held, is_large
from omnidrop.clip.truncation import is_cut_off
from omnidrop.errors import MediaError

__all__ = ["AudioStream", "MediaInfo", "VideoStream", "probe"]

# Formats with no duration in their header: libav divides the file size by the bit rate.
_ESTIMATED = {
    "aac", "ac3", "amr", "dts", "eac3", "gif", "h264", "hevc", "loas", "m4v", "mjpeg", "mp3",
    "mpegvideo", "mpeg", "obu", "truehd", "vc1", "vvc",
}  # fmt: skip
#: Formats of audio whose times are counts of samples. A clock that leaps means joined files there.
COUNTED_FORMATS = {
    "aac", "ac3", "aiff", "amr", "au", "caf", "dts", "eac3", "flac", "loas", "mp3", "ogg", "tta",
    "w64", "wav", "wv",
}  # fmt: skip
_STILL_CODECS = {"mjpeg", "png", "bmp", "webp", "tiff", "gif", "jpegxl"}
_ALWAYS_MEASURED = 64 << 20  # bytes; files up to this size are read packet by packet
_MAX_PACKETS_TO_FIRST_FRAME = 2000
_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True)
class VideoStream:
    """The video stream of a clip.

    Parameters
    ----------
    index : int
        Of the stream in the file.
    width, height : int
        In pixels, as displayed: rotation applied. Pixels are assumed square, as in the reference.
    rotation : int
        Degrees clockwise by which stored frames are rotated for display: 0, 90, 180 or 270.
    mirrored : bool
        Whether stored frames are mirrored, left to right, before rotation.
    average_fps : float or None
    frames : int or None
        As the header says; not reliable.
    duration : float or None
        Seconds.
    start : float
        Seconds, on the file's own clock.
    codec, pixel_format : str
    bit_depth : int
    """

    index: int
    width: int
    height: int
    rotation: int
    mirrored: bool
    average_fps: float | None
    frames: int | None
    duration: float | None
    start: float
    codec: str
    pixel_format: str
    bit_depth: int


@dataclass(frozen=True)
class AudioStream:
    """One audio track of a clip: stream ``index`` of the file, ``number`` among its audio tracks.

    ``rate`` in Hz, ``duration`` and ``start`` in seconds on the file's own clock. ``joined`` says
    that the file is several recordings, one behind the other, each with a clock of its own.
    """

    index: int
    number: int
    codec: str
    rate: int
    channels: int
    duration: float | None
    start: float
    language: str | None
    joined: bool = False


@dataclass(frozen=True)
class MediaInfo:
    """What is in a media file.

    Parameters
    ----------
    path : Path
    format : str
        libav's name of the container.
    duration : float
        Seconds from the start to the end of video and audio.
    start : float
        Time of the clip's second 0 on the file's own clock: the first frame, unless the audio
        starts more than half a second earlier.
    video : VideoStream or None
        None also for audio with cover art.
    audio : tuple of AudioStream
        Those that can be decoded.
    notices : tuple of str
        What the user should know about the file.
    size_bytes : int
    """

    path: Path
    format: str
    duration: float
    start: float
    video: VideoStream | None
    audio: tuple[AudioStream, ...]
    notices: tuple[str, ...]
    size_bytes: int


def probe(path: Any) -> MediaInfo:
    """Probe a media file.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    MediaInfo

    Raises
    ------
    MediaError
        If it is not a media file, or holds neither video nor audio that can be decoded.
    """
    path = as_path(path)
    notices: list[str] = []
    with open_container(path) as container, media_errors(path):
        spans = _header_spans(container)
        video_source = _choose_video(container)
        audio_sources = [s for s in container.streams if s.type == "audio"]
        if video_source is None and not audio_sources:
            kinds = sorted({s.type for s in container.streams if s.type}) or ["nothing"]
            raise MediaError(
                f"The file holds neither video nor audio (only {', '.join(kinds)}).",
                path=path,
                hint="Name a video or audio file.",
            )
        wanted = [s for s in [video_source, *audio_sources] if s is not None]
        estimated = _format_names(container) & _ESTIMATED or (
            "mov" in _format_names(container) and any(not s.frames for s in wanted)
        )
        small = path.stat().st_size <= _ALWAYS_MEASURED
        if estimated or small or any(spans[s.index][1] is None for s in wanted):
            spans = _corrected_spans(path, spans, video_source, wanted, bool(estimated), notices)
        joined = False
        if len(wanted) == 1 and video_source is None and small:
            joined = _joined(path, wanted[0], spans, notices, _format_names(container))
        video = (
            _video_stream(path, container, video_source, spans, notices)
            if video_source is not None
            else None
        )
        audio = tuple(
            stream
            for number, source in enumerate(audio_sources)
            if (stream := _audio_stream(source, number, spans, notices, joined)) is not None
        )
        if not notices and is_cut_off(path, _format_names(container)):
            notices.append("The file is truncated: its end is missing.")
        format_name = container.format.name
        size = path.stat().st_size
    if video is None and not audio:
        raise MediaError(
            "Nothing in the file can be decoded. " + " ".join(notices),
            path=path,
            hint="It may be damaged, encrypted, or refer to media in other files.",
        )
    starts = [stream.start for stream in (video, *audio) if stream is not None]
    start = min(starts)
    if video is not None and video.start - start <= 0.5:
        start = video.start
    ends = [
        stream.start + stream.duration
        for stream in (video, *audio)
        if stream is not None and stream.duration
    ]
    duration = max(0.0, max(ends, default=start) - start)
    return MediaInfo(path, format_name, duration, start, video, audio, tuple(notices), size)


def _format_names(container: Any) -> set[str]:
    return set(container.format.name.split(","))


def _seconds(value: int | None, base: Any) -> float | None:
    return None if value is None or not base else float(value * base)


def _header_spans(container: Any) -> dict[int, tuple[float, float | None]]:
    """Return start, and duration or None, per stream, in seconds, as the headers say."""
    whole = container.duration / av.time_base if container.duration else None
    first = container.start_time / av.time_base if container.start_time else 0.0
    spans = {}
    for stream in container.streams:
        start = _seconds(stream.start_time, stream.time_base)
        start = first if start is None else start
        duration = _seconds(stream.duration, stream.time_base) or _tagged(stream)
        if not duration and whole:
            duration = whole - (start - first)
        spans[stream.index] = (start, duration if duration and duration > 0 else None)
    return spans


def _tagged(stream: Any) -> float | None:
    """Return the duration of a Matroska stream, stored in a tag: ``00:00:10.000000000``."""
    tag = stream.metadata.get("DURATION", "")
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", tag.strip())
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    # The tag holds the stream's end, on a clock that starts with the file.
    start = _seconds(stream.start_time, stream.time_base) or 0.0
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - max(0.0, start)


_RESTART = 0.5  # seconds by which a clock falls back where the next of several joined files begins


def _joined_span(path: Path, index: int) -> tuple[float, float] | None:
    """Return start and duration of an audio track whose clock begins anew, by decoding it.

    None if it does not begin anew.
    """
    start, latest, joined = None, None, False
    with open_container(path) as container:
        stream = container.streams[index]
        with suppress(av.error.FFmpegError, OSError):  # packets before the damage count
            for packet in demux(container, stream):
                if packet.pts is None or not packet.size:
                    continue
                start = packet.pts if start is None else start
                if latest is not None and (packet.pts - latest) * stream.time_base < -_RESTART:
                    joined = True
                    break
                latest = packet.pts
    if start is None or not joined:
        return None
    with open_container(path) as container:
        stream = container.streams[index]
        AudioLayout.of(stream.codec_context)
        seconds = sum(
            frame.samples / frame.sample_rate for frame in decoded_audio(container, stream)
        )
    return float(start * stream.time_base), seconds


def _measured_spans(path: Path, indices: list[int]) -> dict[int, tuple[float, float | None]]:
    """Return start and duration per stream, in seconds, from its packets. Decodes nothing."""
    times: dict[int, list[float]] = {index: [] for index in indices}
    lengths: dict[int, float] = dict.fromkeys(indices, 0.0)  # of the latest packet
    reordered: set[int] = set()
    with open_container(path) as container:
        # Fractions are slow, and this runs for every packet.
        bases = {i: container.streams[i].time_base or Fraction(1) for i in indices}
        scales = {i: (base.numerator, base.denominator) for i, base in bases.items()}
        try:
            for packet in demux(container, [container.streams[i] for i in indices]):
                if packet.pts is None or not packet.size or packet.is_discard:
                    continue
                index = packet.stream_index
                ticks, second = scales[index]
                time = packet.pts * ticks / second
                if not times[index] or time >= max(times[index][-1], times[index][0]):
                    lengths[index] = (packet.duration or 0) * ticks / second
                else:
                    reordered.add(index)
                times[index].append(time)
        except (av.error.FFmpegError, OSError):
            pass  # packets before the damage count
    spans: dict[int, tuple[float, float | None]] = {}
    for index, moments in times.items():
        if moments:
            moments.sort()
            gaps = [b - a for a, b in itertools.pairwise(moments)]
            # If the last packet's duration is unknown, use the median: with reordered frames a
            # packet may carry its neighbour's duration.
            length = 0.0 if index in reordered else lengths[index]
            if not length and gaps:
                length = sorted(gaps)[len(gaps) // 2]
            spans[index] = (moments[0], (moments[-1] + length - moments[0]) or None)
    return spans


def _joined(
    path: Path,
    source: Any,
    spans: dict[int, tuple[float, float | None]],
    notices: list[str],
    formats: set[str],
) -> bool:
    """Correct the span of the only track of an audio file; return whether files are joined."""
    found = _joined_span(path, source.index) if formats & COUNTED_FORMATS else None
    if found is None:
        return False
    spans[source.index] = found
    notices.append("Several recordings are joined in the file; they are heard one after the other.")
    return True


def _corrected_spans(
    path: Path,
    headers: dict[int, tuple[float, float | None]],
    video_source: Any,
    wanted: list[Any],
    estimated: bool,
    notices: list[str],
) -> dict[int, tuple[float, float | None]]:
    """Return the headers' spans, or those of the packets where headers are missing or wrong."""
    spans = dict(headers)
    measured = _measured_spans(path, [stream.index for stream in wanted])
    short = 0.0
    for index, (start, length) in measured.items():
        announced = headers[index][1]
        if announced is None or estimated:
            spans[index] = (start, length)
            continue
        end, announced_end = start + (length or 0.0), headers[index][0] + announced
        # Half a second of audio may be codec padding; frames are not padded.
        if abs(end - announced_end) > (
            0.02 if video_source and index == video_source.index else 0.5
        ):
            spans[index] = (headers[index][0], end - headers[index][0])
        short = max(short, announced_end - end)
    if short > 0.5 and not estimated:
        notices.append(
            f"The file is damaged or truncated: {short:.1f} s that its header announces "
            "are missing."
        )
    return spans


def _choose_video(container: Any) -> Any:
    """Return the video stream, or None; cover art of an audio file does not count."""
    candidates = []
    for stream in container.streams:
        if stream.type != "video":
            continue
        disposition = getattr(stream, "disposition", None)  # since PyAV 14.1
        if disposition is not None:
            # PyAV 14.1 to 17.0 has a Flag, which int() refuses; later ones an IntFlag.
            cover = bool(disposition.value & _ATTACHED_PICTURE)
        else:
            cover = stream.codec_context is not None and (
                stream.codec_context.name in _STILL_CODECS and stream.frames <= 1
                and any(s.type == "audio" for s in container.streams)
            )  # fmt: skip
        if not cover:
            candidates.append(stream)
    return candidates[0] if candidates else None


def _orientation(frame: Any) -> tuple[int, bool]:
    """Return degrees clockwise (a multiple of 90) and mirroring, from a frame's display matrix."""
    for item in frame.side_data:
        if getattr(item.type, "name", "") == "DISPLAYMATRIX":
            a, b, _, c, d = memoryview(bytes(item)).cast("i")[:5]
            mirrored = a * d - b * c < 0
            # A point (x, y) is displayed at (a x + c y, b x + d y); y grows downwards.
            right = (-a, -b) if mirrored else (a, b)
            turns = round(math.degrees(math.atan2(right[1], right[0])) / 90) % 4
            return turns * 90, mirrored
    return 0, False


def _video_stream(
    path: Path,
    container: Any,
    stream: Any,
    spans: dict[int, tuple[float, float | None]],
    notices: list[str],
) -> VideoStream | None:
    start, duration = spans[stream.index]
    context = stream.codec_context
    if context is None:
        notices.append("The video is in a format that cannot be decoded, and is left out.")
        return None
    codec = context.name
    if is_large(context.width, context.height):
        check_held(path, context.width, context.height)
        context.thread_count = 1
    frame = _first_frame(container, stream)
    if frame is None:
        notices.append(f"The video ({codec}) cannot be decoded, and is left out.")
        return None
    if frame.time is not None and 0 < (late := float(frame.time) - start) < 0.5:
        # Without presentation times (avi) the header does not include the decoder's delay.
        start += late
        duration = max(0.0, duration - late) or None if duration else None
    rotation, mirrored = _orientation(frame)
    width, height = frame.width, frame.height
    if rotation in (90, 270):
        width, height = height, width
    transfer = _HDR_TRANSFERS.get(int(getattr(context, "color_trc", 0) or 0))
    if transfer:
        notices.append(f"The video is HDR ({transfer}); its tones are not mapped to SDR.")
    return VideoStream(
        index=stream.index,
        width=width,
        height=height,
        rotation=rotation,
        mirrored=mirrored,
        average_fps=float(stream.average_rate) if stream.average_rate else None,
        frames=stream.frames or None,
        duration=duration,
        start=start,
        codec=codec,
        pixel_format=frame.format.name,
        bit_depth=max((part.bits for part in frame.format.components), default=8),
    )


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


def _audio_stream(
    stream: Any,
    number: int,
    spans: dict[int, tuple[float, float | None]],
    notices: list[str],
    joined: bool,
) -> AudioStream | None:
    context = stream.codec_context
    if context is None or not context.sample_rate:
        notices.append(f"Audio track {number} is in a format that cannot be decoded.")
        return None
    start, duration = spans[stream.index]
    language = getattr(stream, "language", None)
    return AudioStream(
        index=stream.index,
        number=number,
        codec=context.name,
        rate=context.sample_rate,
        channels=len(AudioLayout.of(context).names),
        duration=duration,
        start=start,
        language=None if language in (None, "", "und") else language,
        joined=joined,
    )
