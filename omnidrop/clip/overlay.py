"""Write a clip with every frame changed and its audio kept: H.264 and AAC.

The write is atomic: to a temporary name, renamed at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from omnidrop.clip.audio import audio_frames
from omnidrop.clip.audio_layout import AudioLayout
from omnidrop.clip.clip import Clip
from omnidrop.clip.container import media_errors, open_container
from omnidrop.clip.frames.packets import Damage, discard_other_streams
from omnidrop.clip.frames.reader import FrameReader
from omnidrop.errors import UsageError
from omnidrop.files import whole_file

__all__ = ["write_changed"]

#: Turns a frame, (H, W, 3) uint8 RGB, at a time in seconds from the clip's start, into another.
Change = Callable[[np.ndarray, float], np.ndarray]

MOST_FPS = 60.0
_AAC_RATES = (48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_MICRO = Fraction(1, 1_000_000)
_BT709, _LIMITED = 1, 1  # libav's numbers for HD colour primaries and limited range (16 to 235)


def write_changed(clip: Clip, target: Path, change: Change, *, force: bool = False) -> None:
    """Write the span of a clip at its own rate, with every frame changed.

    Parameters
    ----------
    clip : Clip
        With video.
    target : Path
        Its suffix names the container: .mp4, .mkv, .mov.
    change : callable
        Receives each frame and its time; returns frames of one size, its own or another.
    force : bool
        Replace an existing file.

    Raises
    ------
    UsageError
        If there is no video, the file exists, or it cannot be written.
    MediaError
        If the clip cannot be read.
    """
    if clip.info.video is None or clip.plan is None:
        raise UsageError("There is no video to write.", path=clip.path, hint="Take a video.")
    with whole_file(target, force) as draft:
        _write(clip, draft, change)


def _write(clip: Clip, draft: Path, change: Change) -> None:
    with av.open(str(draft), "w") as out:
        writer = Writer(out, clip)
        writer.write(clip, change)
        writer.finish()


class Writer:
    """Writes clips one after the other into an open container, as H.264 and AAC.

    Parameters
    ----------
    out : av container
        Open for writing.
    first : Clip
        Its frame size, frame rate and audio track are those of the whole file.
    """

    def __init__(self, out: Any, first: Clip) -> None:
        self._out = out
        self._video: Any = None
        self._audio = AudioWriter(out, first) if first.has_audio else None
        self._seconds = 0.0

    def write(self, clip: Clip, change: Change | None = None) -> None:
        """Write the span of a clip; with `change`, every frame up to the last sampled one."""
        audio = self._audio.of(clip) if self._audio is not None and clip.has_audio else None
        if clip.plan is not None:
            for rate, time, image in _frames(clip, change):
                self._put(rate, self._seconds + time, image)
                if audio is not None:
                    audio.up_to(time)
        if audio is not None:
            audio.finish()
        self._seconds += clip.duration

    def finish(self) -> None:
        """Write what the encoders still hold."""
        if self._video is not None:
            self._out.mux(self._video.encode(None))
        if self._audio is not None:
            self._audio.finish()

    def _put(self, rate: Fraction, time: float, image: np.ndarray) -> None:
        if self._video is None:
            self._video = _video_stream(self._out, image.shape, rate)
        frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(
            format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
        )
        frame.time_base, frame.pts = _MICRO, round(time / _MICRO)
        self._out.mux(self._video.encode(frame))


def _frames(clip: Clip, change: Change | None) -> Iterator[tuple[Fraction, float, np.ndarray]]:
    """Yield rate, time and image of each frame; the size is even, as H.264 requires."""
    video, plan = clip.info.video, clip.plan
    assert video is not None
    assert plan is not None
    fps = min(video.average_fps or 25.0, MOST_FPS)
    rate = Fraction(fps).limit_denominator(1001)
    end = clip.duration
    if change is not None:
        end = min(end, float(plan.times[-1]) + 1 / plan.fps)
    times = np.arange(max(1, round(end * fps))) / fps
    clock = clip.info.start + clip.start
    reader = FrameReader(clip.path, video, Damage())
    for number, image in reader.frames((times + clock).tolist()):
        time = float(times[number])
        changed = image.permute(1, 2, 0).numpy().copy()
        if change is not None:
            changed = change(changed, time)
        height, width = changed.shape[0] // 2 * 2, changed.shape[1] // 2 * 2
        yield rate, time, np.ascontiguousarray(changed[:height, :width])


def _video_stream(out: Any, shape: tuple[int, ...], rate: Fraction) -> Any:
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    options = {"crf": "20", "preset": "veryfast"} if codec == "libx264" else {"q": "3"}
    stream = out.add_stream(codec, rate=rate, options=options)
    stream.height, stream.width, stream.pix_fmt = shape[0], shape[1], "yuv420p"
    context = stream.codec_context
    context.time_base = _MICRO
    # Stored in the file; players would otherwise guess from the frame size.
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED
    return stream


class AudioWriter:
    """Encodes the audio of clips one after the other as AAC.

    Parameters
    ----------
    out : av container
        Open for writing.
    first : Clip
        Its track's rate and layout are those of all.
    """

    def __init__(self, out: Any, first: Clip) -> None:
        track = first.audio_source[1]
        self.rate = track.rate if track.rate in _AAC_RATES else _AAC_RATES[0]
        self.layout = "mono" if track.channels == 1 else "stereo"
        self._out = out
        self._stream = out.add_stream("aac", rate=self.rate, layout=self.layout)
        self._before = 0

    def of(self, clip: Clip) -> _AudioCopy:
        """Return what writes the audio of the next clip."""
        copy = _AudioCopy(clip, self, self._before)
        self._before += round(clip.duration * self.rate)
        return copy

    def put(self, frame: Any) -> None:
        """Encode a frame, whose position is that in the whole file."""
        self._out.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._out.mux(self._stream.encode(None))


class _AudioCopy:
    """Reads a clip's audio track from the clip's start to its end, and has it encoded."""

    def __init__(self, clip: Clip, writer: AudioWriter, before: int) -> None:
        info, track = clip.audio_source
        self._writer, self._rate, self._before = writer, writer.rate, before
        self._resampler = av.AudioResampler("fltp", writer.layout, self._rate)
        self._origin = info.start + clip.start
        self._samples = round(clip.duration * self._rate)
        self._frames = self._decoded(info.path, track)
        self._place = 0

    def up_to(self, time: float) -> None:
        """Write the audio up to a time in seconds from the clip's start."""
        while self._place < min(time * self._rate, self._samples):
            if not self._next():
                return

    def finish(self) -> None:
        """Write the rest."""
        while self._place < self._samples and self._next():
            pass
        self._frames.close()

    def _next(self) -> bool:
        frame = next(self._frames, None)
        if frame is None:
            self._samples = self._place
            return False
        self._writer.put(frame)
        return True

    def _decoded(self, path: Path, track: Any) -> Any:
        """Yield the audio frames within the clip, with positions counted in samples."""
        with media_errors(path), open_container(path) as container:
            stream = container.streams[track.index]
            AudioLayout.of(stream.codec_context)
            discard_other_streams(container, stream)
            if self._origin - track.start > 2.0:
                container.seek(int((self._origin - 1.0) / stream.time_base), stream=stream)
            for decoded in audio_frames(container, stream, Damage()):
                time = track.start if decoded.time is None else float(decoded.time)
                place = round((time - self._origin) * self._rate)
                decoded.pts = None
                for frame in self._resampler.resample(decoded):
                    yield from self._trimmed(frame.to_ndarray(), place)
                    place += frame.samples

    def _trimmed(self, samples: np.ndarray, place: int) -> Iterator[Any]:
        """Trim samples to the clip and to what is not written yet."""
        first = max(0, self._place - place)
        samples = samples[:, first : max(first, self._samples - place)]
        if not samples.shape[1]:
            return
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), "fltp", self._resampler.layout.name
        )
        frame.sample_rate, frame.time_base = self._rate, Fraction(1, self._rate)
        frame.pts = self._before + place + first
        self._place = place + first + samples.shape[1]
        yield frame
