"""A clip written anew with every frame changed, its sound kept: H.264 and AAC.

The file appears whole or not at all: it is written under another name and renamed at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from omnidrop.clip.audio import sound_frames
from omnidrop.clip.clip import Clip
from omnidrop.clip.container import media_errors, open_container
from omnidrop.clip.frames.packets import Damage, leave_out_others
from omnidrop.clip.frames.reader import FrameReader
from omnidrop.errors import UsageError
from omnidrop.files import whole_file

__all__ = ["write_changed"]

#: Turns a frame, (H, W, 3) uint8 RGB, at a time in seconds from the clip's start, into another.
Change = Callable[[np.ndarray, float], np.ndarray]

MOST_FPS = 60.0
_AAC_RATES = (48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_MICRO = Fraction(1, 1_000_000)
_BT709, _LIMITED = 1, 1  # libav's numbers for colours of HD video, 16 to 235


def write_changed(clip: Clip, target: Path, change: Change, *, force: bool = False) -> None:
    """Write the span of a clip at its own size and rate, every frame changed.

    Parameters
    ----------
    clip : Clip
        With a picture.
    target : Path
        Its suffix names the container: .mp4, .mkv, .mov.
    change : callable
        Gets each frame and its time; must return one of the same size.
    force : bool
        Replace the file if it is there.

    Raises
    ------
    UsageError
        If there is no picture, the file exists, or it cannot be written.
    MediaError
        If the clip cannot be read.
    """
    if clip.info.video is None or clip.plan is None:
        raise UsageError("There is no picture to write.", path=clip.path, hint="Take a video.")
    with whole_file(target, force) as draft:
        _write(clip, draft, change)


def _write(clip: Clip, draft: Path, change: Change) -> None:
    with av.open(str(draft), "w") as out:
        frames = _frames(clip, change)
        rate, first = next(frames)
        video = _video_stream(out, first[1].shape, rate)
        sound = _Sound(clip, out) if clip.has_audio else None
        for time, picture in _chained(first, frames):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            frame.time_base, frame.pts = _MICRO, round(time / _MICRO)
            out.mux(video.encode(frame))
            if sound is not None:
                sound.up_to(time)
        out.mux(video.encode(None))
        if sound is not None:
            sound.finish()


def _chained(first: Any, rest: Iterator[Any]) -> Iterator[tuple[float, np.ndarray]]:
    yield first
    for _, item in rest:
        yield item


def _frames(clip: Clip, change: Change) -> Iterator[tuple[Fraction, tuple[float, np.ndarray]]]:
    """Yield the rate, and time and picture of each frame; of even size, as H.264 wants it."""
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
    # Said in the file, or players would guess by the size of the picture.
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED
    return stream


class _Sound:
    """Copies a clip's sound track, from the clip's start to its end, decoded and encoded anew."""

    def __init__(self, clip: Clip, out: Any) -> None:
        info, track = clip.sound_source
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
        """Write the sound up to a time in seconds from the clip's start."""
        while self._place < min(time * self._rate, self._samples):
            if not self._next():
                return

    def finish(self) -> None:
        """Write what is left."""
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
        """Yield frames of the sound that lie in the clip, their places counted in samples."""
        with media_errors(path), open_container(path) as container:
            stream = container.streams[track.index]
            leave_out_others(container, stream)
            if self._origin - track.start > 2.0:
                container.seek(int((self._origin - 1.0) / stream.time_base), stream=stream)
            for decoded in sound_frames(container, stream, Damage()):
                time = track.start if decoded.time is None else float(decoded.time)
                place = round((time - self._origin) * self._rate)
                decoded.pts = None
                for frame in self._resampler.resample(decoded):
                    yield from self._trimmed(frame.to_ndarray(), place)
                    place += frame.samples

    def _trimmed(self, samples: np.ndarray, place: int) -> Iterator[Any]:
        """Cut a piece to the clip and to what was not written yet."""
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
