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
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from omnidrop.clip import matroska
from omnidrop.clip.audio_layout import AudioLayout
from omnidrop.clip.clock import PLAIN, PacketTimes, StreamClock, aligned, find_clocks
from omnidrop.clip.container import (
    as_path,
    decoded_audio,
    demux,
    media_errors,
    open_container,
)
from omnidrop.clip.truncation import is_cut_off
from omnidrop.clip.video_stream import choose_video, is_default
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
_ALWAYS_MEASURED = 64 << 20  # bytes; files up to this size are read packet by packet
# The clock of these may break anywhere, and their headers announce no duration.
_LIVE, _LIVE_MEASURED = {"mpegts", "flv"}, 2 << 30
_USUAL_RATE = 25  # frames per second of a stream that says nothing of them
_GUESSED_TIMES = {"mjpeg"}  # formats without times; libav counts their frames
_HIGHEST_RATE = 1000  # above it a rate is a time base, not a rate
_WIDEST_PIXEL = 8  # a pixel that is said to be longer than so many times its height is not believed
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True)
class VideoStream:
    """The video stream of a clip.

    Parameters
    ----------
    index : int
        Of the stream in the file.
    width, height : int
        As displayed: rotation applied, and pixels that are not square made so, by stretching their
        shorter side.
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
    stored_size : (height, width)
        Of the pixels that are stored, rotation applied.
    transfer : str or None
        ``"PQ"`` or ``"HLG"`` of HDR video.
    clock : StreamClock
        How stored times become those of a steady clock; ``start`` lies on the steady one.
    own_duration : bool
        Whether ``duration`` is this stream's own, and not that of the whole file.
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
    stored_size: tuple[int, int]
    transfer: str | None = None
    clock: StreamClock = PLAIN
    own_duration: bool = True


@dataclass(frozen=True)
class AudioStream:
    """One audio track of a clip: stream ``index`` of the file, ``number`` among its audio tracks.

    ``rate`` in Hz, ``duration`` and ``start`` in seconds on the steady clock that ``clock`` gives.
    ``joined`` says that the file is several recordings, one behind the other, each with a clock of
    its own.
    """

    index: int
    number: int
    codec: str
    rate: int
    channels: int
    duration: float | None
    start: float
    language: str | None
    clock: StreamClock = PLAIN
    default: bool = False
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


def probe(path: Any, video_track: int | None = None) -> MediaInfo:
    """Probe a media file.

    Parameters
    ----------
    path : path-like
    video_track : int, optional
        Number of the video track, from 0; by default the one that a player would show.

    Returns
    -------
    MediaInfo

    Raises
    ------
    MediaError
        If it is not a media file, or holds neither video nor audio that can be decoded.
    UsageError
        If it has no such video track.
    """
    path = as_path(path)
    notices: list[str] = []
    with open_container(path) as container, media_errors(path):
        video_source, first_frame = choose_video(path, container, video_track, notices)
        audio_sources = [s for s in container.streams if s.type == "audio"]
        if video_source is None and not audio_sources:
            kinds = sorted({s.type for s in container.streams if s.type}) or ["nothing"]
            raise MediaError(
                f"The file holds neither video nor audio (only {', '.join(kinds)}).",
                path=path,
                hint="Name a video or audio file.",
            )
        if first_frame is None and audio_sources:
            video_source = None
        wanted = [s for s in [video_source, *audio_sources] if s is not None]
        formats, size = _format_names(container), path.stat().st_size
        found = _header_spans(container)
        estimated = formats & _ESTIMATED or ("mov" in formats and any(not s.frames for s in wanted))
        small = size <= (_LIVE_MEASURED if formats & _LIVE else _ALWAYS_MEASURED)
        if estimated or small or any(found.spans[s.index][1] is None for s in wanted):
            _measure(path, found, video_source, wanted, bool(estimated), formats, notices)
        for index, shift in aligned(
            {s.index: found.spans[s.index] for s in wanted}, notices
        ).items():
            start, duration = found.spans[index]
            found.spans[index] = (start + shift, duration)
            found.clocks[index] = replace(found.clocks[index], shift=shift)
        joined = False
        if len(wanted) == 1 and video_source is None and small:
            joined = _joined(path, wanted[0], found.spans, notices, formats)
        video = (
            _video_stream(video_source, first_frame, found, notices)
            if first_frame is not None
            else None
        )
        audio = tuple(
            stream
            for number, source in enumerate(audio_sources)
            if (stream := _audio_stream(source, number, found, notices, joined)) is not None
        )
        if "matroska" in formats and (count := matroska.recordings(path)) > matroska.READ:
            notices.append(
                f"The file is {count} recordings, one behind the other; only the first "
                f"{matroska.READ} are read."
            )
        if not notices and is_cut_off(path, formats):
            notices.append("The file is truncated: its end is missing.")
        format_name = container.format.name
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


def _header_spans(container: Any) -> _Spans:
    """Return what the headers say of each stream, in seconds."""
    whole = container.duration / av.time_base if container.duration else None
    first = container.start_time / av.time_base if container.start_time else 0.0
    # libav gives the duration of the whole file to streams that have none of their own.
    shared = "matroska" in _format_names(container) and len(container.streams) > 1
    found = _Spans({}, set(), {})
    for stream in container.streams:
        start = _seconds(stream.start_time, stream.time_base)
        start = first if start is None else start
        tagged = _tagged(stream)
        duration = tagged or _seconds(stream.duration, stream.time_base)
        if duration and (tagged or not shared):
            found.own.add(stream.index)
        if not duration and whole:
            duration = whole - (start - first)
        found.spans[stream.index] = (start, duration if duration and duration > 0 else None)
        found.clocks[stream.index] = PLAIN
    return found


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
    """Return start and duration of an audio track whose clock restarts, by decoding it.

    None if it does not restart.
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


def _packet_times(path: Path, indices: list[int]) -> dict[int, PacketTimes]:
    """Return the times of all packets of the named streams. Decodes nothing."""
    streams = {index: PacketTimes() for index in indices}
    with open_container(path) as container:
        # Fractions are slow, and this runs for every packet.
        bases = {i: container.streams[i].time_base or Fraction(1) for i in indices}
        scales = {i: (base.numerator, base.denominator) for i, base in bases.items()}
        try:
            for packet in demux(container, [container.streams[i] for i in indices]):
                if not packet.size:
                    continue
                index = packet.stream_index
                times = streams[index]
                times.packets += 1
                if packet.is_discard:
                    times.late_discards = times.late_discards or bool(times.shown)
                    continue
                if packet.pts is None:
                    continue
                ticks, second = scales[index]
                time = packet.pts * ticks / second
                shown = times.shown
                if not shown or time >= max(shown[-1], shown[0]):
                    times.length = (packet.duration or 0) * ticks / second
                else:
                    times.reordered = True
                shown.append(time)
                times.positions.append(packet.pos)
        except (av.error.FFmpegError, OSError):
            pass  # packets before the damage count
    return streams


def _span(times: PacketTimes) -> tuple[float, float | None]:
    """Return start and duration, in seconds, of a stream with packets that have times."""
    moments = sorted(times.shown)
    gaps = [b - a for a, b in itertools.pairwise(moments)]
    # If the last packet's duration is unknown, use the median: with reordered frames a packet may
    # carry its neighbour's duration.
    length = 0.0 if times.reordered else times.length
    if not length and gaps:
        length = sorted(gaps)[len(gaps) // 2]
    return moments[0], (moments[-1] + length - moments[0]) or None


@dataclass
class _Spans:
    """Start and duration (None if unknown) of each stream, its clock, and whether it is its own."""

    spans: dict[int, tuple[float, float | None]]
    own: set[int]
    clocks: dict[int, StreamClock]


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


def _measure(
    path: Path,
    found: _Spans,
    video_source: Any,
    wanted: list[Any],
    estimated: bool,
    formats: set[str],
    notices: list[str],
) -> None:
    """Replace the headers' spans by those of the packets where headers are missing or wrong."""
    video = None if video_source is None else video_source.index
    streams = _packet_times(path, [stream.index for stream in wanted])
    found.clocks.update(find_clocks(streams, video, formats, notices))
    headers = dict(found.spans)
    short: list[float] = []
    short_of_file: list[float] = []
    for index, times in streams.items():
        if not times.shown:
            if times.packets and index == video:
                rate = float(_frame_rate(video_source) or _USUAL_RATE)
                found.clocks[index] = StreamClock(interval=1 / rate, sequential=True)
                found.spans[index] = (0.0, times.packets / rate)
                notices.append(_no_times(rate))
            continue
        if index == video and formats & _GUESSED_TIMES:
            notices.append(_no_times(len(times.shown) / max(1e-6, _span(times)[1] or 1.0)))
        start, length = _span(times)
        announced = headers[index][1]
        if announced is None or estimated or found.clocks[index].breaks:
            found.spans[index] = (start, length)
            found.own.add(index)
            continue
        end, announced_end = start + (length or 0.0), headers[index][0] + announced
        # Half a second of audio may be codec padding; frames are not padded.
        if abs(end - announced_end) > (0.02 if index == video else 0.5):
            found.spans[index] = (headers[index][0], end - headers[index][0])
        (short if index in found.own else short_of_file).append(announced_end - end)
        found.own.add(index)
    # One stream may end before the file does; all of them may not.
    missing = max(short, default=min(short_of_file, default=0.0))
    if missing > 0.5:
        notices.append(
            f"The file is damaged or truncated: {missing:.1f} s that its header announces "
            "are missing."
        )


def _no_times(rate: float) -> str:
    return f"The video stores no times; its frames are taken to come at {rate:g} per second."


def _frame_rate(stream: Any) -> Fraction | None:
    """Return the frames per second that the headers give, or libav's guess, or None."""
    for rate in (getattr(stream, "guessed_rate", None), stream.average_rate):
        if rate and 0 < rate <= _HIGHEST_RATE:
            return Fraction(rate)
    return None


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


def _video_stream(stream: Any, frame: Any, found: _Spans, notices: list[str]) -> VideoStream:
    start, duration = found.spans[stream.index]
    context = stream.codec_context
    codec = context.name
    clock = found.clocks[stream.index]
    if clock.is_plain and frame.time is not None and 0 < (late := float(frame.time) - start) < 0.5:
        # Without presentation times (avi) the header does not include the decoder's delay.
        start += late
        duration = max(0.0, duration - late) or None if duration else None
    rotation, mirrored = _orientation(frame)
    stored, (width, height) = (frame.height, frame.width), _shown_size(stream, frame)
    if rotation in (90, 270):
        width, height = height, width
        stored = stored[::-1]
    transfer = _HDR_TRANSFERS.get(int(getattr(context, "color_trc", 0) or 0))
    if transfer:
        notices.append(f"The video is HDR ({transfer}); its tones are mapped to SDR.")
    if frame.interlaced_frame:
        notices.append("The video is interlaced; where its fields differ, one of them is shown.")
    return VideoStream(
        index=stream.index,
        width=width,
        height=height,
        rotation=rotation,
        mirrored=mirrored,
        average_fps=_average_fps(stream, clock),
        frames=stream.frames or None,
        duration=duration,
        start=start,
        codec=codec,
        pixel_format=frame.format.name,
        bit_depth=max((part.bits for part in frame.format.components), default=8),
        stored_size=stored,
        transfer=transfer,
        clock=clock,
        own_duration=stream.index in found.own,
    )


def _shown_size(stream: Any, frame: Any) -> tuple[int, int]:
    """Return width and height of a frame with square pixels, as a player shows it."""
    width, height = frame.width, frame.height
    ratio = float(getattr(stream, "sample_aspect_ratio", None) or 1)
    if not 1 / _WIDEST_PIXEL <= ratio <= _WIDEST_PIXEL or abs(ratio - 1) < 0.005:
        return width, height
    return (round(width * ratio), height) if ratio > 1 else (width, round(height / ratio))


def _average_fps(stream: Any, clock: StreamClock) -> float | None:
    if clock.interval is not None:
        return 1 / clock.interval
    return float(stream.average_rate) if stream.average_rate else None


def _audio_stream(
    stream: Any, number: int, found: _Spans, notices: list[str], joined: bool
) -> AudioStream | None:
    context = stream.codec_context
    if context is None or not context.sample_rate:
        notices.append(f"Audio track {number} is in a format that cannot be decoded.")
        return None
    start, duration = found.spans[stream.index]
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
        clock=found.clocks[stream.index],
        default=is_default(stream),
        joined=joined,
    )
