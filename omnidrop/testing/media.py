"""Media files of every kind, made by PyAV while the tests run.

Each function writes one file and returns its path. Pictures are smooth, move, and carry the number
of their frame as the brightness of a bar, so that a decoded frame can tell which one it is
(`frame_number`); sound is a tone.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1", 16: "hexadecagonal"}

LEVELS = 14  # brightness levels of a digit of the frame number


def picture(number: int, width: int, height: int) -> np.ndarray:
    """Return frame ``number``: uint8 (H, W, 3), three grey bars above a moving gradient."""
    x = np.arange(width)[None, :] + number * 3
    y = np.arange(height)[:, None] + number
    # sin(a ± b) = sin a cos b ± cos a sin b: a sine for each row and column, none for each pixel.
    image = np.empty((height, width, 3))
    image[..., 0] = np.sin(x / 37) * np.cos(y / 91) + np.cos(x / 37) * np.sin(y / 91)
    image[..., 1] = np.sin(x / 53) * np.cos(y / 41) - np.cos(x / 53) * np.sin(y / 41)
    image[..., 2] = np.cos(y / 29)
    image *= 100
    image += 128
    bar = max(1, height // 3)
    third = max(1, width // 3)
    for place in range(3):
        digit = number // LEVELS**place % LEVELS
        image[:bar, place * third : (place + 1) * third] = 24 + 16 * digit
    return image.astype(np.uint8)


def frame_number(image: Any) -> int:
    """Read the number of a frame back: uint8 (3, H, W), of any size."""
    image = np.asarray(image)
    bar, third = image.shape[1] // 3, image.shape[2] // 3
    number = 0
    for place in range(3):
        part = image[:, bar // 4 : max(bar // 4 + 1, bar * 3 // 4),
                     place * third + third // 4 : place * third + max(third // 4 + 1, third * 3 // 4)]  # fmt: skip  # noqa: E501
        number += round((float(part.mean()) - 24) / 16) * LEVELS**place
    return number


def tone(seconds: float, rate: int = 44_100, channels: int = 1, hertz: float = 440) -> np.ndarray:
    """Return a tone: float32 (channels, S)."""
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.4 * np.sin(2 * np.pi * hertz * time)
    return np.stack([wave / (1 + i) for i in range(channels)]).astype(np.float32)


def write(
    path: Path,
    *,
    seconds: float = 4.0,
    fps: int = 25,
    size: tuple[int, int] = (160, 120),
    codec: str | None = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    times: list[float] | None = None,
    sounds: list[dict[str, Any]] | None = None,
    container_options: dict[str, str] | None = None,
    container: str | None = None,
    color_range: int | None = None,
    first: int = 0,
) -> Path:
    """Write a media file.

    Parameters
    ----------
    codec : str or None
        Of the picture; None for none.
    size : (width, height)
    times : list of float, optional
        Presentation times of the frames, instead of a constant rate.
    sounds : list of dict, optional
        Per sound track ``codec``, ``seconds``, ``start``, ``rate``, ``channels``, ``hertz``,
        ``language``, ``layout``, and ``gains``: a factor per channel, all of one tone.
    first : int
        Number that the first picture carries.
    """
    path = Path(path)
    with av.open(str(path), "w", format=container, options=container_options or {}) as output:
        jobs: list[tuple[float, Any]] = []
        if codec is not None:
            jobs += _video_jobs(output, seconds, fps, size, codec, pixels, options, times,
                                color_range, first)  # fmt: skip
        for sound in sounds or []:
            jobs += _audio_jobs(output, **{"seconds": seconds, **sound})
        streams = []
        for _, (stream, frame) in sorted(jobs, key=lambda job: job[0]):
            output.mux(stream.encode(frame))
            if stream not in streams:
                streams.append(stream)
        for stream in streams:
            output.mux(stream.encode(None))
    return path


def _video_jobs(output, seconds, fps, size, codec, pixels, options, times, color_range, first):
    stream = output.add_stream(codec, rate=fps)
    stream.width, stream.height = size
    stream.pix_fmt = pixels
    stream.options = options or {}
    base = Fraction(1, 1000) if times else Fraction(1, fps)
    stream.codec_context.time_base = base
    if color_range is not None:
        stream.codec_context.color_range = color_range
    jobs = []
    moments = times if times is not None else [i / fps for i in range(round(seconds * fps))]
    for number, time in enumerate(moments):
        frame = av.VideoFrame.from_ndarray(picture(first + number, *size), format="rgb24")
        if color_range is not None:
            frame = frame.reformat(
                format=pixels, dst_color_range={1: "MPEG", 2: "JPEG"}[color_range]
            )
        frame.pts = round(time / base)
        frame.time_base = base
        jobs.append((time, (stream, frame)))
    return jobs


def _audio_jobs(output, seconds, codec="aac", start=0.0, rate=44_100, channels=1, hertz=440,
                language=None, layout=None, gains=None):  # fmt: skip
    stream = output.add_stream(codec, rate=rate)
    stream.layout = layout or _LAYOUTS[channels]
    if codec.startswith("wma"):  # its default is more than it takes for one channel
        stream.bit_rate = 64_000
    if language:
        stream.metadata["language"] = language
    wave = tone(seconds, rate, channels, hertz)
    if gains is not None:
        wave = wave[:1] * np.array(gains, dtype=np.float32)[:, None]
    format_name = "fltp"
    if channels > 6:  # PyAV fills no planar frame of so many channels
        wave, format_name = wave.T.reshape(1, -1), "flt"
    jobs = []
    step = 1024
    width = channels if format_name == "flt" else 1
    for first in range(0, wave.shape[1] // width, step):
        block = np.ascontiguousarray(wave[:, first * width : (first + step) * width])
        frame = av.AudioFrame.from_ndarray(block, format=format_name, layout=stream.layout.name)
        frame.sample_rate = rate
        frame.pts = first + round(start * rate)
        frame.time_base = Fraction(1, rate)
        jobs.append((start + first / rate, (stream, frame)))
    return jobs


# One function per kind


def mp4(path: Path, **rest: Any) -> Path:
    """H.264 with B-frames and AAC."""
    return write(path, **{"sounds": [{"codec": "aac"}], **rest})


def silent_mp4(path: Path, **rest: Any) -> Path:
    """A picture without a sound track."""
    return write(path, **rest)


def mkv(path: Path, **rest: Any) -> Path:
    """Matroska with H.264 and Opus."""
    return write(path, **{"sounds": [{"codec": "libopus", "rate": 48_000}], **rest})


def mkv_without_duration(path: Path, **rest: Any) -> Path:
    """Matroska as a live stream writes it: no duration, no index."""
    return mkv(path, **{"container_options": {"live": "1"}, **rest})


def webm(path: Path, codec: str = "libvpx-vp9", **rest: Any) -> Path:
    """VP8 or VP9, and Opus."""
    speed = {"deadline": "realtime", "cpu-used": "8"}
    sounds = [{"codec": "libopus", "rate": 48_000}]
    return write(path, **{"codec": codec, "options": speed, "sounds": sounds, **rest})


def mov(path: Path, **rest: Any) -> Path:
    """QuickTime with H.264 and PCM."""
    return write(path, **{"sounds": [{"codec": "pcm_s16le", "channels": 2}], **rest})


def avi(path: Path, **rest: Any) -> Path:
    """MPEG-4 with B-frames and MP3."""
    sounds = [{"codec": "libmp3lame"}]
    return write(path, **{"codec": "mpeg4", "options": {"b": "2M"}, "sounds": sounds, **rest})


def ts(path: Path, **rest: Any) -> Path:
    """MPEG transport stream; its clock does not begin at 0."""
    return write(path, **{"sounds": [{"codec": "aac"}], "options": {"g": "25"}, **rest})


def gif(path: Path, **rest: Any) -> Path:
    """An animated GIF."""
    return write(path, **{"codec": "gif", "pixels": "rgb8", "fps": 10, **rest})


def variable_rate(path: Path, times: list[float] | None = None, **rest: Any) -> Path:
    """Frames at uneven times."""
    if times is None:
        times = [0, 0.04, 0.08, 0.5, 0.52, 1.3, 1.31, 1.9, 2.6, 2.64, 2.68, 3.5, 3.9]
    return write(path, **{"times": times, **rest})


def ten_bit(path: Path, **rest: Any) -> Path:
    """Ten bits a channel."""
    return write(path, **{"pixels": "yuv420p10le", **rest})


def late_audio(path: Path, start: float = 1.5, **rest: Any) -> Path:
    """Sound that begins after the picture."""
    seconds = rest.get("seconds", 4.0) - start
    return write(path, **{"sounds": [{"codec": "aac", "start": start, "seconds": seconds}], **rest})


def several_tracks(path: Path, **rest: Any) -> Path:
    """Two sound tracks, of 440 and of 1000 Hz."""
    sounds = [
        {"codec": "aac", "hertz": 440, "language": "eng"},
        {"codec": "aac", "hertz": 1000, "language": "deu"},
    ]
    return write(path, **{"sounds": sounds, **rest})


def rotated(path: Path, degrees: int = 90, mirrored: bool = False, **rest: Any) -> Path:
    """An mp4 whose header says to turn the picture clockwise."""
    mp4(path, **{"sounds": [], **rest})
    data = bytearray(path.read_bytes())
    unit = 1 << 16
    a, b, c, d = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[
        degrees
    ]
    if mirrored:  # first mirrored, then turned
        a, b = -a, -b
    header = data.index(b"tkhd")
    place = header + 4 + 4 + 4 * 5 + 8 + 8  # version and flags, times and ids, reserved, layer…
    matrix = struct.pack(">9i", a * unit, b * unit, 0, c * unit, d * unit, 0, 0, 0, 1 << 30)
    data[place : place + 36] = matrix
    path.write_bytes(data)
    return path


def audio_only(path: Path, codec: str, seconds: float = 3.0, cover: bool = False, **sound: Any) -> Path:  # fmt: skip  # noqa: E501
    """Sound alone, with or without a cover picture."""
    sound = {"codec": codec, "seconds": seconds, **sound}
    if not cover:
        return write(path, codec=None, sounds=[sound])
    container = "mp4" if path.suffix == ".m4a" else None
    with av.open(str(path), "w", format=container) as output:
        jobs = _audio_jobs(output, **sound)
        art = output.add_stream("mjpeg", rate=1)
        art.width, art.height, art.pix_fmt = 64, 64, "yuvj420p"
        # By its number: PyAV 14.1 to 17.0 take no member.
        number: Any = av.stream.Disposition.attached_pic.value
        art.disposition = number
        frame = av.VideoFrame.from_ndarray(picture(3, 64, 64), format="rgb24")
        frame.pts = 0
        art_packets = art.encode(frame) + art.encode(None)
        for packet in art_packets:
            output.mux(packet)
        for _, (stream, block) in jobs:
            output.mux(stream.encode(block))
        output.mux(jobs[0][1][0].encode(None))
    return path


def wav(path: Path, seconds: float = 3.0, rate: int = 44_100, channels: int = 1, hertz: float = 440) -> Path:  # fmt: skip  # noqa: E501
    """A wav, flac, ogg or mp3 file, by libsndfile."""
    soundfile.write(str(path), tone(seconds, rate, channels, hertz).T, rate)
    return path


def listed_channels(path: Path, tag: int = 122, **rest: Any) -> Path:
    """QuickTime with 5.1 PCM whose channels stand in an order of their own: L R Ls Rs C LFE."""
    mov(path, **{"sounds": [{"codec": "pcm_s16le", "channels": 6, "layout": "5.1"}], **rest})
    data = bytearray(path.read_bytes())
    place = data.index(b"chan") + 8
    data[place : place + 4] = struct.pack(">I", tag << 16 | 6)
    path.write_bytes(data)
    return path


def unfinished_wav(path: Path, size: int = 0, **rest: Any) -> Path:
    """A wav whose header was never completed: both sizes are 0, or FFFFFFFF."""
    data = bytearray(wav(path, **rest).read_bytes())
    place = data.index(b"data") + 4
    data[4:8] = data[place : place + 4] = struct.pack("<I", size)
    path.write_bytes(data)
    return path


def chained(
    path: Path, codec: str | None, seconds: float = 3.0, hertz: tuple[float, ...] = (440, 1000)
) -> Path:
    """Recordings of one codec, each with headers of its own, one behind the other.

    Without a codec libsndfile chooses it by the name: Vorbis for .ogg.
    """
    parts = []
    for tone_of in hertz:
        if codec is None:
            wav(path, seconds, 48_000, hertz=tone_of)
        else:
            audio_only(path, codec, seconds, rate=48_000, hertz=tone_of)
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


def float_wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    """A wav of 32-bit floats, written as they are: NaN and infinities too."""
    body = np.asarray(samples, dtype="<f4").tobytes()
    head = struct.pack("<HHIIHH", 3, 1, rate, 4 * rate, 4, 32)
    chunks = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(body))
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunks) + len(body)) + chunks + body)
    return path


def flat_colour(
    path: Path, rgb: tuple[int, int, int], matrix: str = "709", full: bool = False
) -> Path:
    """A flat colour, as YUV by the definition of its matrix (709, 601 or 2020), stored lossless.

    Full range needs the matrix too: both are written into the stream.
    """
    red, blue = {"709": (0.2126, 0.0722), "601": (0.299, 0.114), "2020": (0.2627, 0.0593)}[matrix]
    r, g, b = (value / 255 for value in rgb)
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    scales = (255, 255, 0) if full else (219, 224, 16)
    planes = (scales[2] + scales[0] * y, 128 + scales[1] * u, 128 + scales[1] * v)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.options = {"qp": "0"}
        context = stream.codec_context
        context.colorspace = {"709": 1, "601": 6, "2020": 9}[matrix]
        context.color_range = 2 if full else 1
        for number in range(5):
            frame = av.VideoFrame(160, 120, "yuv420p")
            for plane, value in zip(frame.planes, planes, strict=True):
                plane.update(bytes([round(value)]) * plane.buffer_size)
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


# Pictures


def from_frames(path: Path, frames: list[Any], options: dict[str, str], fps: int = 5) -> Path:
    """Encode frames as they are with x264."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height = frames[0].width, frames[0].height
        stream.pix_fmt = frames[0].format.name
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, fps)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def hdr(path: Path, transfer: str, levels: tuple[float, ...]) -> Path:
    """Grey steps side by side, of signal levels 0 to 1, in 10 bits and BT.2020."""
    luma = np.repeat(np.array([round(64 + 876 * level) for level in levels], np.uint16), 40)
    width = len(luma)
    frame = av.VideoFrame(width, 80, "yuv420p10le")
    for plane, rows, row in zip(
        frame.planes,
        (80, 40, 40),
        (luma, *[np.full(width // 2, 512, np.uint16)] * 2),
        strict=True,
    ):
        line = row.tobytes().ljust(plane.line_size, b"\0")
        plane.update(line * rows)
    colours = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:range=tv"
    return from_frames(path, [frame] * 10, {"qp": "0", "x264-params": colours})


def interlaced(path: Path, step: int = 8) -> Path:
    """A bright bar that moves by ``step`` pixels a field, before thin lines that stand still."""
    frames = []
    for number in range(50):
        image = np.full((240, 320, 3), 40, np.uint8)
        image[200:, ::40] = 160
        image[220] = 160
        for field in (0, 1):
            left = (number * 2 + field) * step % 280
            image[field:200:2, left : left + 40] = 215
        frames.append(av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p"))
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1", "crf": "4"}
    return from_frames(path, frames, options, 25)


# Clocks


def joined(path: Path, *parts: Path, header: int = 0) -> Path:
    """Join files byte by byte; ``header`` bytes of all but the first are left out (flv: 13)."""
    first, *others = (part.read_bytes() for part in parts)
    path.write_bytes(first + b"".join(data[header:] for data in others))
    return path


def remuxed(path: Path, source: Path, moved: dict[str, float], after: float = -1e9) -> Path:
    """Copy the packets, those of a kind ("video", "audio") from ``after`` on moved by seconds."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        copies = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is None or packet.pts is None:
                continue
            if packet.dts * packet.time_base >= after:
                shift = round(Fraction(moved.get(packet.stream.type, 0)) / packet.time_base)
                packet.pts += shift
                packet.dts += shift
            packet.stream = copies[packet.stream.index]
            new.mux(packet)
    return path


def combined(path: Path, *sources: Path, default: Collection[int] | None = None) -> Path:
    """Copy the streams of several files into one, those of numbers in ``default`` marked so."""
    with ExitStack() as stack:
        new = stack.enter_context(av.open(str(path), "w"))
        packets: list[tuple[Fraction, Any]] = []
        count = 0
        for source in sources:
            old = stack.enter_context(av.open(str(source)))
            copies = {}
            for stream in old.streams:
                copies[stream.index] = copy = new.add_stream_from_template(stream)
                if default is not None:
                    mark: Any = av.stream.Disposition.default.value if count in default else 0
                    copy.disposition = mark
                count += 1
            for packet in old.demux():
                if packet.dts is not None:
                    packet.stream = copies[packet.stream.index]
                    packets.append((packet.dts * packet.time_base, packet))
        for _, packet in sorted(packets, key=lambda pair: pair[0]):
            new.mux(packet)
    return path


def scrambled(path: Path, packet_ids: Collection[int]) -> Path:
    """Scramble the packets of some elementary streams of a transport stream."""
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), 188):
        if (data[place + 1] & 31) << 8 | data[place + 2] in packet_ids:
            data[place + 3] |= 0x80
            data[place + 4 : place + 188] = bytes(b ^ 0x5A for b in data[place + 4 : place + 188])
    path.write_bytes(data)
    return path


def _boxes(data: bytes, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while place + 8 <= end:
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        yield kind, place, place + size
        place += size


def edited(path: Path, source: Path, edits: list[tuple[float, float]]) -> Path:
    """Give both tracks of an mp4 an edit list: (seconds, second of the media) of each edit."""
    data = source.read_bytes()

    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(content), kind) + content

    def at(kinds: list[bytes], place: int, end: int) -> int:
        for kind in kinds:
            place, end = next((a + 8, b) for k, a, b in _boxes(data, place, end) if k == kind)
        return place

    def track(place: int, end: int) -> bytes:
        (scale,) = struct.unpack(
            ">I", data[(p := at([b"mdia", b"mdhd"], place, end)) + 12 : p + 16]
        )
        parts = []
        for kind, first, last in _boxes(data, place, end):
            if kind == b"edts":
                (delay,) = struct.unpack(">i", data[first + 28 : first + 32])
                rows = b"".join(
                    struct.pack(">IiI", round(length * 1000), delay + round(scale * start), 1 << 16)
                    for length, start in edits
                )
                parts.append(box(b"edts", box(b"elst", struct.pack(">II", 0, len(edits)) + rows)))
            else:
                parts.append(data[first:last])
        return box(b"trak", b"".join(parts))

    out = []
    for kind, first, last in _boxes(data, 0, len(data)):
        if kind == b"moov":
            inner = [
                track(a + 8, b) if k == b"trak" else data[a:b]
                for k, a, b in _boxes(data, first + 8, last)
            ]
            out.append(box(b"moov", b"".join(inner)))
        else:
            out.append(data[first:last])
    path.write_bytes(b"".join(out))
    return path


def truncated(path: Path, keep: float = 0.5) -> Path:
    """Cut a file off in the middle."""
    data = path.read_bytes()
    length = int(len(data) * keep)
    path.write_bytes(data[: length - (length % 188 == 0)])  # within a packet, also of a ts
    return path


def damaged(path: Path, first: float = 0.4, last: float = 0.5, seed: int = 0) -> Path:
    """Overwrite a stretch in the middle of a file with noise."""
    data = bytearray(path.read_bytes())
    a, b = int(len(data) * first), int(len(data) * last)
    data[a:b] = np.random.default_rng(seed).integers(0, 256, b - a, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    return path


def faststart_mp4(path: Path, **rest: Any) -> Path:
    """An mp4 with its header in front, so that it survives being cut off."""
    return mp4(path, **{"container_options": {"movflags": "faststart"}, **rest})


def fragmented_mp4(path: Path, **rest: Any) -> Path:
    """An mp4 in fragments, as recorders and browsers write it."""
    flags = {"movflags": "frag_keyframe+empty_moov"}
    return mp4(path, **{"container_options": flags, "options": {"g": "25"}, **rest})
