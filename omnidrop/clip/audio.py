"""An audio track as mono float32 at the model's rate, in blocks of bounded size.

Sample 0 is the start of the clip. Late starts and gaps are filled with silence, so that audio never
drifts from the video. libav resamples; then channels are averaged, as librosa does for the
reference.

Audio-only files are read by libsndfile where it can (wav, flac, ogg), and by PyAV otherwise. mp3
goes to PyAV too, because libsndfile's decoder writes to stderr about truncated files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import soundfile

from omnidrop.clip.clock import Corrector
from omnidrop.clip.container import media_errors, open_container, open_file
from omnidrop.clip.frames.packets import Damage, discard_other_streams
from omnidrop.clip.probe import AudioStream

#: Audio-only containers that libsndfile reads first.
SNDFILE_FORMATS = {"wav", "w64", "flac", "ogg", "aiff", "au", "caf"}

_PREROLL = 1.0  # seconds decoded before the start, so that codec and resampler have settled
_GAP = 0.1  # seconds by which the file's clock may disagree with its sample count
_MOST_SILENCE = 600  # seconds of silence that are made up for one gap
_TRIES = 50  # damaged packets in a row before the rest is given up
# Samples resampled together: codecs yield about a thousand at a time, and each call has a cost.
_GATHERED = 1 << 14


class Mono:
    """Resampler to mono float32; the format of libav's frames may change between calls.

    Parameters
    ----------
    rate : int
        Of the output, in Hz.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._kind: tuple[Any, ...] | None = None
        self._gathered: Any = None
        self._resampler: Any = None

    def push(self, frame: Any) -> list[np.ndarray]:
        """Resample a frame; return float32 arrays (S,), perhaps none yet."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        done = []
        if kind != self._kind:
            done = self.flush()
            self._kind = kind
            self._gathered = av.AudioFifo()
            self._resampler = av.AudioResampler("fltp", frame.layout.name, self.rate)
        frame.pts = None  # positions are counted here
        self._gathered.write(frame)
        if self._gathered.samples >= _GATHERED:
            done += self._average(self._resampler.resample(self._gathered.read()))
        return done

    def flush(self) -> list[np.ndarray]:
        """Return the samples still buffered, and reset."""
        if self._resampler is None:
            return []
        rest = self._gathered.read()
        frames = self._resampler.resample(rest) if rest is not None else []
        rest = self._average([*frames, *self._resampler.resample(None)])
        self._resampler = self._gathered = self._kind = None
        return rest

    @staticmethod
    def _average(frames: list[Any]) -> list[np.ndarray]:
        arrays = (frame.to_ndarray() for frame in frames if frame is not None and frame.samples)
        return [array.mean(axis=0, dtype=np.float32) for array in arrays]


def audio_blocks(
    path: Path,
    track: AudioStream,
    *,
    file_format: str,
    alone: bool,
    origin: float,
    length: float | None,
    rate: int,
    damage: Damage,
    reach: float = 0.0,
) -> Iterator[np.ndarray]:
    """Yield an audio track from ``origin`` on.

    Parameters
    ----------
    track : AudioStream
        As probed.
    file_format : str
        libav's name of the container.
    alone : bool
        Whether the file holds this audio track and nothing else.
    origin : float
        Seconds on the file's own clock at which sample 0 lies.
    length : float or None
        Seconds to read, or None for everything.
    rate : int
        Samples per second of the output.
    damage : Damage
        Receives the packets that could not be decoded, leaps, and where the audio ended.
    reach : float
        Seconds, on the same clock as ``origin``, up to which a gap is filled with silence however
        long it is; beyond it a gap of more than ten minutes is taken for a leap of the clock.

    Yields
    ------
    ndarray, float32, (S,)
        At most ten seconds each.
    """
    limit = None if length is None else round(length * rate)
    blocks: Any = None
    if alone and file_format in SNDFILE_FORMATS:
        blocks = _sndfile_blocks(path, track, origin, rate, damage)
    if blocks is None:
        blocks = _libav_blocks(path, track, origin, rate, damage)
    place = 0  # samples yielded so far
    where = 0  # position of the next decoded sample; negative before the origin
    leapt = 0.0  # seconds of leaps that were closed
    largest = 10 * rate
    try:
        for time, block in blocks:
            # A block without a time continues the previous one.
            where = where if time is None else round((time - origin - leapt) * rate)
            if where > max(place + _MOST_SILENCE * rate, (reach - origin) * rate):
                leapt += (where - place) / rate
                damage.leaps += 1
                where = place
            ahead = where - place if limit is None else min(where, limit) - place
            for start in range(0, ahead, largest):
                yield np.zeros(min(largest, ahead - start), dtype=np.float32)
            place += max(0, ahead)
            fresh = block[max(0, place - where) :]
            where += len(block)
            if limit is not None:
                fresh = fresh[: limit - place]
            for start in range(0, len(fresh), largest):
                yield fresh[start : start + largest]
            place += len(fresh)
            if limit is not None and place >= limit:
                return
    finally:
        blocks.close()
        damage.ended = origin + place / rate


def _sndfile_blocks(
    path: Path, track: AudioStream, origin: float, rate: int, damage: Damage
) -> Any:
    """Read with libsndfile; None if it cannot read the file."""
    handle = open_file(path)
    try:
        source = soundfile.SoundFile(handle)
    except (soundfile.LibsndfileError, RuntimeError, OSError):
        handle.close()
        return None
    return _read_sndfile(handle, source, path, track, origin, rate, damage)


def _read_sndfile(
    handle: Any,
    source: soundfile.SoundFile,
    path: Path,
    track: AudioStream,
    origin: float,
    rate: int,
    damage: Damage,
) -> Iterator[tuple[float | None, np.ndarray]]:
    with handle, source:
        resampler = Mono(rate)
        first = 0
        if origin - track.start > 2 * _PREROLL and source.seekable():
            first = source.seek(int((origin - track.start - _PREROLL) * source.samplerate))
        time: float | None = track.start + first / source.samplerate
        done, broken = first, False
        while True:
            try:
                block = source.read(5 * source.samplerate, dtype="float32", always_2d=True)
            except (soundfile.LibsndfileError, RuntimeError):
                broken = True
                break
            if not len(block):
                break
            done += len(block)
            mono = np.ascontiguousarray(block.mean(axis=1, dtype=np.float32))[None]
            frame = av.AudioFrame.from_ndarray(mono, format="fltp", layout="mono")
            frame.sample_rate = source.samplerate
            for block in resampler.push(frame):
                yield time, block
                time = None
        for block in resampler.flush():
            yield time, block
            time = None
    if broken:  # libsndfile stops at the first error; libav reads what follows
        reached = max(origin, track.start + done / source.samplerate)
        yield from _libav_blocks(path, track, reached, rate, damage)


def _libav_blocks(
    path: Path, track: AudioStream, origin: float, rate: int, damage: Damage
) -> Iterator[tuple[float | None, np.ndarray]]:
    """Read with libav; the first block, and each one after a gap, carries its time."""
    resampler = Mono(rate)
    clock: float | None = None  # time at which the next frame should start
    time: float | None = None
    with media_errors(path), open_container(path) as container:
        stream = container.streams[track.index]
        discard_other_streams(container, stream)
        clock_of = track.clock
        correct = None if clock_of.is_plain else Corrector(clock_of, stream.time_base)
        if origin - track.start > 2 * _PREROLL and not clock_of.sequential:
            stored = clock_of.stored(origin - _PREROLL)
            with suppress(av.error.FFmpegError, OverflowError):  # else read from the start
                container.seek(math.floor(stored / stream.time_base), stream=stream)
        for frame in audio_frames(container, stream, damage, correct):
            if frame.time is not None and (clock is None or abs(frame.time - clock) > _GAP):
                for block in resampler.flush():
                    yield time, block
                    time = None
                time = clock = float(frame.time)
            elif clock is None:
                time = clock = track.start
            clock += frame.samples / frame.sample_rate
            for block in resampler.push(frame):
                yield time, block
                time = None
        for block in resampler.flush():
            yield time, block
            time = None


def audio_frames(
    container: Any, stream: Any, damage: Damage, correct: Corrector | None = None
) -> Iterator[Any]:
    """Decode an audio track, its clock corrected; damaged packets are recorded and skipped."""
    packets = container.demux(stream)
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
            damage.corrupt.add(len(damage.corrupt))
            failures += 1
            packets = container.demux(stream)
            continue
        failures = 0
        yield from (frame for frame in frames if frame.samples)
