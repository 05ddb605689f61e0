"""A sound track as mono float32 at the model's rate, in blocks of bounded size.

Sample 0 is the beginning of the clip: what starts late is preceded by silence, and what is missing
in the middle is replaced by it, so that sound never drifts away from the picture. Channels are
averaged, as librosa does for the reference, after resampling by libav.

Files of sound alone are read by libsndfile where it can (wav, flac, ogg), and by PyAV elsewhere;
mp3 too, for libsndfile's own decoder writes to stderr about files that are cut short.
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

from omnidrop.clip.container import media_errors, open_container, open_file
from omnidrop.clip.frames.packets import Damage, leave_out_others
from omnidrop.clip.probe import AudioStream

SOUND_FORMATS = {"wav", "w64", "flac", "ogg", "aiff", "au", "caf"}
"""Containers of sound alone that libsndfile is asked to read first."""

_PREROLL = 1.0  # seconds decoded before the start, so that codec and resampler are in full swing
_GAP = 0.1  # seconds by which the file's clock may disagree with the count of its samples
_TRIES = 50
# Samples resampled together: codecs give about a thousand at a time, and every call has its price.
_GATHERED = 1 << 14


class Mono:
    """Resampler to mono float32 that takes libav's frames of any and of changing kind.

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
        """Resample a frame; returns float32 arrays (S,), maybe none yet."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        done = []
        if kind != self._kind:
            done = self.flush()
            self._kind = kind
            self._gathered = av.AudioFifo()
            self._resampler = av.AudioResampler("fltp", frame.layout.name, self.rate)
        frame.pts = None  # places are counted by us
        self._gathered.write(frame)
        if self._gathered.samples >= _GATHERED:
            done += self._average(self._resampler.resample(self._gathered.read()))
        return done

    def flush(self) -> list[np.ndarray]:
        """Return what is still inside, and be as new."""
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
) -> Iterator[np.ndarray]:
    """Yield a sound track from ``origin`` on.

    Parameters
    ----------
    track : AudioStream
        As probed.
    file_format : str
        libav's name of the container.
    alone : bool
        Whether the file holds this sound track and nothing else.
    origin : float
        Seconds on the file's own clock; where sample 0 is to lie.
    length : float or None
        Seconds to read, or None for all there is.
    rate : int
        Samples a second wanted.
    damage : Damage
        Gets the count of packets that could not be decoded, and where the sound ended.

    Yields
    ------
    ndarray, float32, (S,)
        At most ten seconds each.
    """
    limit = None if length is None else round(length * rate)
    pieces: Any = None
    if alone and file_format in SOUND_FORMATS:
        pieces = _sndfile_pieces(path, track, origin, rate, damage)
    if pieces is None:
        pieces = _libav_pieces(path, track, origin, rate, damage)
    place = 0  # samples given out so far
    where = 0  # place of the next sample that comes; negative while it lies before the origin
    largest = 10 * rate
    try:
        for time, piece in pieces:
            # A piece without a time goes on where the last one ended.
            where = where if time is None else round((time - origin) * rate)
            ahead = where - place if limit is None else min(where, limit) - place
            for start in range(0, ahead, largest):
                yield np.zeros(min(largest, ahead - start), dtype=np.float32)
            place += max(0, ahead)
            fresh = piece[max(0, place - where) :]
            where += len(piece)
            if limit is not None:
                fresh = fresh[: limit - place]
            for start in range(0, len(fresh), largest):
                yield fresh[start : start + largest]
            place += len(fresh)
            if limit is not None and place >= limit:
                return
    finally:
        pieces.close()
        damage.ended = origin + place / rate


def _sndfile_pieces(
    path: Path, track: AudioStream, origin: float, rate: int, damage: Damage
) -> Any:
    """Read with libsndfile; None if it does not know the file."""
    handle = open_file(path)
    try:
        sound = soundfile.SoundFile(handle)
    except (soundfile.LibsndfileError, RuntimeError, OSError):
        handle.close()
        return None
    return _read_sndfile(handle, sound, path, track, origin, rate, damage)


def _read_sndfile(
    handle: Any,
    sound: soundfile.SoundFile,
    path: Path,
    track: AudioStream,
    origin: float,
    rate: int,
    damage: Damage,
) -> Iterator[tuple[float | None, np.ndarray]]:
    with handle, sound:
        resampler = Mono(rate)
        first = 0
        if origin - track.start > 2 * _PREROLL and sound.seekable():
            first = sound.seek(int((origin - track.start - _PREROLL) * sound.samplerate))
        time: float | None = track.start + first / sound.samplerate
        done, broken = first, False
        while True:
            try:
                block = sound.read(5 * sound.samplerate, dtype="float32", always_2d=True)
            except (soundfile.LibsndfileError, RuntimeError):
                broken = True
                break
            if not len(block):
                break
            done += len(block)
            mono = np.ascontiguousarray(block.mean(axis=1, dtype=np.float32))[None]
            frame = av.AudioFrame.from_ndarray(mono, format="fltp", layout="mono")
            frame.sample_rate = sound.samplerate
            for piece in resampler.push(frame):
                yield time, piece
                time = None
        for piece in resampler.flush():
            yield time, piece
            time = None
    if broken:  # libsndfile gives up at the first fault; libav reads on to the end of what is there
        reached = max(origin, track.start + done / sound.samplerate)
        yield from _libav_pieces(path, track, reached, rate, damage)


def _libav_pieces(
    path: Path, track: AudioStream, origin: float, rate: int, damage: Damage
) -> Iterator[tuple[float | None, np.ndarray]]:
    """Read with libav; the first piece, and each one after a gap, comes with its time."""
    resampler = Mono(rate)
    clock: float | None = None  # where the next frame should begin
    time: float | None = None
    with media_errors(path), open_container(path) as container:
        stream = container.streams[track.index]
        leave_out_others(container, stream)
        if origin - track.start > 2 * _PREROLL:
            with suppress(av.error.FFmpegError, OverflowError):  # or read from the beginning
                container.seek(math.floor((origin - _PREROLL) / stream.time_base), stream=stream)
        for frame in sound_frames(container, stream, damage):
            if frame.time is not None and (clock is None or abs(frame.time - clock) > _GAP):
                for piece in resampler.flush():
                    yield time, piece
                    time = None
                time = clock = float(frame.time)
            elif clock is None:
                time = clock = track.start
            clock += frame.samples / frame.sample_rate
            for piece in resampler.push(frame):
                yield time, piece
                time = None
        for piece in resampler.flush():
            yield time, piece
            time = None


def sound_frames(container: Any, stream: Any, damage: Damage) -> Iterator[Any]:
    """Decode a sound track; damage is counted and skipped."""
    packets = container.demux(stream)
    failures = 0
    while failures < _TRIES:
        try:
            packet = next(packets, None)
            if packet is None:
                return
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
