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
        frames = _frames(clip, change)
        rate, first = next(frames)
        video = _video_stream(out, first[1].shape, rate)
        audio = _AudioCopy(clip, out) if clip.has_audio else None
        for time, image in _chained(first, frames):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            frame.time_base, frame.pts = _MICRO, round(time / _MICRO)
            out.mux(video.encode(frame))
            if audio is not None:
                audio.up_to(time)
        out.mux(video.encode(None))
        if audio is not None:
            audio.finish()


def _chained(first: Any, rest: Iterator[Any]) -> Iterator[tuple[float, np.ndarray]]:
    yield first
    for _, item in rest:
        yield item


def _frames(clip: Clip, change: Change) -> Iterator[tuple[Fraction, tuple[float, np.ndarray]]]:
    """Yield the rate, and time and image of each frame; the size is even, as H.264 requires."""
    video, plan = clip.info.video, clip.plan
    assert video is not None
    assert plan is not None
    fps = min(video.average_fps or 25.0, MOST_FPS)
    rate = Fraction(fps).limit_denominator(1001)
    end = float(plan.times[-1]) + 1 / plan.fps
    times = np.arange(max(1, round(min(clip.duration, end) * fps))) / fps
    clock = clip.info.start + clip.start
    reader = FrameReader(clip.path, video, Damage())
    for number, image in reader.frames((times + clock).tolist()):
        time = float(times[number])
        changed = change(image.permute(1, 2, 0).numpy().copy(), time)
        height, width = changed.shape[0] // 2 * 2, changed.shape[1] // 2 * 2
        yield rate, (time, np.ascontiguousarray(changed[:height, :width]))


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


class _AudioCopy:
    """Re-encodes a clip's audio track, from the clip's start to its end."""

    def __init__(self, clip: Clip, out: Any) -> None:
        info, track = clip.audio_source
        self._out = out
        self._rate = track.rate if track.rate in _AAC_RATES else _AAC_RATES[0]
        layout = "mono" if track.channels == 1 else "stereo"
        self._stream = out.add_stream("aac", rate=self._rate, layout=layout)
        self._resampler = av.AudioResampler("fltp", layout, self._rate)
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
        self._out.mux(self._stream.encode(None))

    def _next(self) -> bool:
        frame = next(self._frames, None)
        if frame is None:
            self._samples = self._place
            return False
        self._out.mux(self._stream.encode(frame))
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
        frame.pts = place + first
        self._place = place + first + samples.shape[1]
        yield frame
