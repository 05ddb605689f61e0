"""An audio track as mono float32 at the model's rate, in blocks of bounded size.

Sample 0 is the start of the clip. Late starts and gaps are filled with silence, so that audio never
drifts from the video. libav resamples; then the channels are mixed (`audio_layout`).

Every file is read by libav. libsndfile believes the sizes in headers, 0 and FFFFFFFF included, and
stops at the end of the first of several joined Ogg or FLAC streams.
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

from omnidrop.clip.audio_layout import AudioLayout, mix
from omnidrop.clip.clock import Corrector
from omnidrop.clip.container import decoded_audio, media_errors, open_container
from omnidrop.clip.frames.packets import Damage, discard_other_streams
from omnidrop.clip.probe import COUNTED_FORMATS, AudioStream

_PREROLL = 1.0  # seconds decoded before the start, so that codec and resampler have settled
_GAP = 0.1  # seconds by which the file's clock may disagree with its sample count
# Most seconds of silence that are filled in: so many, and one more for so many bytes of the file.
# A damaged time can stand for any age; nothing in a file's contents backs it.
_SILENCE, _BYTES_OF_SILENCE = 3600, 200
# Samples resampled together: codecs yield about a thousand at a time, and each call has a cost.
_GATHERED = 1 << 14
_LOUDEST = 65536.0  # files in 16-bit units reach half of it; beyond are no samples but noise


class Mono:
    """Resampler to mono float32; the format of libav's frames may change between calls.

    Parameters
    ----------
    rate : int
        Of the output, in Hz.
    layout : AudioLayout
        The track's, for frames that do not say theirs.
    damage : Damage
        Told of inverted channels and of samples that are no numbers.
    """

    def __init__(self, rate: int, layout: AudioLayout, damage: Damage) -> None:
        self.rate = rate
        self._layout = layout
        self._damage = damage
        self._kind: tuple[Any, ...] | None = None
        self._weights = layout.weights()
        self._gathered: Any = None
        self._resampler: Any = None

    def push(self, frame: Any) -> list[np.ndarray]:
        """Resample a frame; return float32 arrays (S,), perhaps none yet."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        done = []
        if kind != self._kind:
            done = self.flush()
            self._kind = kind
            self._weights = self._weights_of(frame)
            self._gathered = av.AudioFifo()
            # Packed: PyAV reads past the pointers of planar frames of eight channels and more.
            self._resampler = av.AudioResampler("flt", frame.layout.name, self.rate)
        frame.pts = None  # positions are counted here
        self._gathered.write(frame)
        if self._gathered.samples >= _GATHERED:
            done += self._mixed(self._resampler.resample(self._gathered.read()))
        return done

    def flush(self) -> list[np.ndarray]:
        """Return the samples still buffered, and reset."""
        if self._resampler is None:
            return []
        rest = self._gathered.read()
        frames = self._resampler.resample(rest) if rest is not None else []
        rest = self._mixed([*frames, *self._resampler.resample(None)])
        self._resampler = self._gathered = self._kind = None
        return rest

    def _weights_of(self, frame: Any) -> np.ndarray:
        names = tuple(channel.name for channel in frame.layout.channels)
        layout = AudioLayout(names)
        if frame.layout.name == f"{len(names)} channels" and len(self._layout.names) == len(names):
            layout = self._layout
        return layout.weights()

    def _mixed(self, frames: list[Any]) -> list[np.ndarray]:
        done = []
        for frame in frames:
            if frame is None or not frame.samples:
                continue
            samples = frame.to_ndarray().reshape(frame.samples, len(self._weights))
            # One fast product tells in nearly all cases; written so that NaN counts as wrong.
            if not np.vdot(samples, samples) <= _LOUDEST:
                wrong = ~(np.abs(samples) <= _LOUDEST)
                self._damage.not_numbers += int(wrong.sum())
                samples = np.where(wrong, np.float32(0.0), samples)
            mono, inverted = mix(samples, self._weights)
            self._damage.inverted |= inverted
            done.append(mono)
        return done


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

    Yields
    ------
    ndarray, float32, (S,)
        At most ten seconds each.
    """
    limit = None if length is None else round(length * rate)
    counted = alone and file_format in COUNTED_FORMATS
    blocks: Any = _decoded_blocks(path, track, counted, origin, rate, damage)
    place = 0  # samples yielded so far
    where = 0  # position of the next decoded sample; negative before the origin
    leapt = 0  # samples by which the file's clock has leapt
    silence = round((_SILENCE + path.stat().st_size / _BYTES_OF_SILENCE) * rate)
    largest = 10 * rate
    try:
        for time, block in blocks:
            # A block without a time continues the previous one.
            if time is not None and math.isfinite(time):
                where = round((time - origin) * rate) - leapt
            ahead = where - place if limit is None else min(where, limit) - place
            if ahead > silence:  # a clock that leaps, not a gap: what follows, follows at once
                leapt += where - place
                where, ahead = place, 0
                damage.leapt = leapt / rate
            silence -= max(0, ahead)
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


def _decoded_blocks(
    path: Path,
    track: AudioStream,
    counted: bool,
    origin: float,
    rate: int,
    damage: Damage,
) -> Iterator[tuple[float | None, np.ndarray]]:
    """Yield blocks; the first, and each one after a gap, carries its time."""
    clock: float | None = None  # time at which the next frame should start
    time: float | None = None
    with media_errors(path), open_container(path) as container:
        stream = container.streams[track.index]
        resampler = Mono(rate, AudioLayout.of(stream.codec_context), damage)
        discard_other_streams(container, stream)
        steady = track.clock
        correct = None if steady.is_plain else Corrector(steady, stream.time_base)
        sought = origin - track.start > 2 * _PREROLL and not (track.joined or steady.sequential)
        if sought:
            stored = steady.stored(origin - _PREROLL)
            with suppress(av.error.FFmpegError, OverflowError):  # else read from the start
                container.seek(math.floor(stored / stream.time_base), stream=stream)
        for frame in audio_frames(container, stream, damage, correct, sought):
            frame_time = frame.time
            if frame_time is not None and (
                clock is None or (abs(frame_time - clock) > _GAP and not counted)
            ):
                for block in resampler.flush():
                    yield time, block
                    time = None
                time = clock = float(frame_time)
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
    container: Any,
    stream: Any,
    damage: Damage,
    correct: Corrector | None = None,
    sought: bool = False,
) -> Iterator[Any]:
    """Decode an audio track, its clock corrected; damaged packets are recorded and skipped.

    After seeking in a program stream the first packet may be a fragment; that is no damage.
    """
    whole = not sought

    def note() -> None:
        if whole:
            damage.corrupt.add(len(damage.corrupt))

    for frame in decoded_audio(container, stream, note, correct):
        whole = True
        yield frame
