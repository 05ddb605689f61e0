"""Frames of a video at given sample times: the frame on screen at each of them.

Decoding every frame of a clip to keep two per second costs more than the model. So:

- the decoder uses several threads;
- frames that no sample shows and no other frame refers to are not decoded;
- frames between a sample and the last key frame before the next sample are skipped;
- only sampled frames are converted to RGB;
- if samples are far apart, the reader seeks.

None of this changes a pixel of the result.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import av.error
import av.stream
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

from omnidrop.clip.container import media_errors, open_container
from omnidrop.clip.frames.large import is_large, reduced
from omnidrop.clip.frames.packets import CLOCK_SLACK, Damage, Packets, discard_other_streams
from omnidrop.clip.frames.picture import hdr_divisor, tone_mapped, without_combs
from omnidrop.clip.probe import VideoStream

_SEEK_GAP = 3.0  # seconds between samples above which seeking may be faster than decoding
_MAX_HELD = 32 << 20  # bytes of packets held while searching for a key frame
# By default PyAV 17 starts threads for every frame it converts, which takes longer than converting.
_PYAV = int(av.__version__.split(".")[0])
_ONE_THREAD: dict[str, Any] = {"threads": 1} if _PYAV >= 17 else {}
_SMALL = 320 * 240 * 60  # pixels in a clip below which decoder threads cost more than they save


_RGB_DEFAULT = 5  # SWS_CS_DEFAULT: no matrix of its own


def _matrix(frame: Any) -> dict[str, int]:
    """Return the arguments that make PyAV before 17 use the frame's own colour matrix.

    It ignores the matrix unless source and target differ, and decodes BT.709 as BT.601.
    """
    if _PYAV >= 17 or frame.colorspace not in (1, 4, 7, 9, 10):
        return {}
    return {"src_colorspace": int(frame.colorspace), "dst_colorspace": _RGB_DEFAULT}


class FrameReader:
    """Decodes the frames on screen at given times.

    Parameters
    ----------
    path : Path
    stream : VideoStream
        As probed.
    damage : Damage
        Receives the packets that could not be decoded.
    threads : int, optional
        Decoder threads; chosen by the clip's size by default.

    Attributes
    ----------
    sequential_only : bool
        True once decoding from a key frame has failed, and for streams with a broken clock:
        neither seek nor skip any more.

    Notes
    -----
    State, in seconds on the file's clock. Infinities mean "none":

    ===================  ========================================================================
    ``_times``           sample times of the span being read
    ``_seek_gap``        gap between samples above which to seek; grows when seeking saved nothing
    ``_ready``           decoded frames not yet examined
    ``_drained``         the decoder was flushed at the end of the file
    ``_first_valid``     frames before this time are dropped: their references may be missing (-inf)
    ``_target``          sample time that was sought, until the first frame after seeking is out
    ``_back``            how far before ``_target`` the key frame was searched
    ``_sent``            latest frame given to the decoder since it was last empty (-inf)
    ``_searched``        sample time up to which a key frame to skip to was searched (-inf)
    ``_intra``           every frame is a key frame (fixed per file)
    ``_counted``         frames decoded of a stream whose frames carry no times
    ``_cancelled``       set from another thread to end `frames`
    ===================  ========================================================================
    """

    def __init__(
        self, path: Path, stream: VideoStream, damage: Damage, threads: int | None = None
    ) -> None:
        self.path = path
        self.stream = stream
        self.damage = damage
        self.sequential_only = stream.clock.sequential
        self._packets = Packets(damage, 1.0 / (stream.average_fps or 25.0), stream.clock)
        self._threads = threads
        self._cancelled = False
        self._stack = ExitStack()
        self._container: Any = None
        self._source: Any = None
        self._context: Any = None
        self._scaler = VideoReformatter()
        self._intra = False
        self._times: Sequence[float] = ()
        self._seek_gap = _SEEK_GAP
        self._ready: deque[Any] = deque()
        self._drained = False
        self._first_valid = -math.inf
        self._target: float | None = None
        self._back = 0.0
        self._sent = -math.inf
        self._searched = -math.inf
        self._counted = 0

    def key_frame_near(self, time: float) -> float | None:
        """Return the time of the key frame that seeking to ``time`` reaches, or None.

        It lies before ``time``, or soon after in files without an index. Opens the file; `frames`
        then also starts at a key frame.
        """
        with media_errors(self.path):
            if self._container is None:
                self._open()
            try:
                self._seek_packets(time)
            except (av.error.FFmpegError, OverflowError):
                return None
            return self._packets.to_key_frame()

    @property
    def largest_gap(self) -> float:
        """Longest time between frames in seconds: how long the last one may stay on screen."""
        return self._packets.largest_gap

    @largest_gap.setter
    def largest_gap(self, seconds: float) -> None:
        self._packets.largest_gap = seconds

    def close(self) -> None:
        """Close the file. Needed only if `frames`, which closes it, was never called."""
        self._stack.close()

    def cancel(self) -> None:
        """End `frames`, running in another thread, before its next frame."""
        self._cancelled = True

    def frames(self, *spans: Sequence[float]) -> Generator[tuple[int, Tensor], None, None]:
        """Yield the frame on screen at each sample time.

        Parameters
        ----------
        *spans : sequence of float
            Sample times, ascending, in seconds on the file's clock. The reader seeks to a key frame
            before the second span and each later one.

        Yields
        ------
        number : int
            Index of the sample time, counted over all spans. Times after the last frame has left
            the screen are not yielded.
        frame : Tensor, uint8, (3, H, W)
            RGB, rotation applied. The same tensor is yielded again while the same frame is on
            screen, and must not be written to. Not always contiguous.
        """
        first = 0
        try:
            with media_errors(self.path):
                moved = self._container is not None
                if not moved:
                    self._open()
                for times in spans:
                    self._times = times
                    late = bool(times) and times[0] > self.stream.start + 1.0
                    if moved or (late and not self.stream.clock.sequential):
                        self._seek(times[0])
                    moved = True
                    number = -1
                    for number, image in self._shown(times):
                        yield first + number, image
                    if number + 1 < len(times):
                        return
                    first += len(times)
        finally:
            self._stack.close()

    def _shown(self, times: Sequence[float]) -> Iterator[tuple[int, Tensor]]:
        held: Any = None
        image: Tensor | None = None
        now = -math.inf
        number = 0
        while number < len(times):
            gap = times[number] - now
            if gap > self._seek_gap and now > -math.inf and not self.sequential_only:
                self._seek_ahead(times[number], now)
                held, image, now = None, None, -math.inf
            frame = self._next_frame()
            if frame is None:
                break
            time = self._time(frame, now)
            if time < now:  # a clock that runs backwards: the current frame stays on screen
                continue
            while number < len(times) and time > times[number] + CLOCK_SLACK:
                if image is None:  # before the first frame, the first frame counts
                    image = self._convert(frame if held is None else held)
                yield number, image
                number += 1
            held, image, now = frame, None, time
        if held is None or number == len(times) or self._cancelled:
            return
        self.damage.ended = self._packets.position
        for rest in range(number, len(times)):
            if self._is_cut_off() and times[rest] > self._held_until():
                return
            image = self._convert(held) if image is None else image
            yield rest, image

    def _held_until(self) -> float:
        """Return until when the last frame of a file that is cut off counts as on screen."""
        return self._packets.position + max(0.5, self.largest_gap)

    def _is_cut_off(self) -> bool:
        """Whether the stream ends before its announced end; a whole one holds its last frame."""
        stream = self.stream
        if not stream.own_duration or stream.duration is None:
            return False
        return self._held_until() < stream.start + stream.duration

    def _time(self, frame: Any, now: float) -> float:
        if frame.pts is not None:
            return self._packets.seconds(frame.pts)
        return max(now, self.stream.start) + 1.0 / (self.stream.average_fps or 25.0)

    def _convert(self, frame: Any) -> Tensor:
        """Return a decoded frame as RGB, rotated for display: uint8, (3, H, W)."""
        # By name, because PyAV 14 takes no numbers. Without it full-range colours are stretched.
        spread = {1: "MPEG", 2: "JPEG"}.get(int(frame.color_range))
        scaled: dict[str, Any] = {}
        if is_large(frame.width, frame.height):
            width, height = reduced(frame.width, frame.height)
            scaled = {"width": width, "height": height, "interpolation": "AREA"}
        elif self.stream.transfer and (part := hdr_divisor(frame.width, frame.height)) > 1:
            size = {"width": frame.width // part, "height": frame.height // part}
            scaled = {**size, "interpolation": "AREA"}
        rgb = self._scaler.reformat(
            frame,
            format="rgb48le" if self.stream.transfer else "rgb24",
            src_color_range=spread,
            **scaled,
            **_matrix(frame),
            **_ONE_THREAD,
        )
        pixels = rgb.to_ndarray()
        if frame.interlaced_frame and not scaled:
            pixels = without_combs(pixels)
        if self.stream.transfer:
            pixels = tone_mapped(pixels, self.stream.transfer)
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        if self.stream.mirrored:
            image = image.flip(2)
        if self.stream.rotation:  # torch copies the frame even for no rotation
            image = torch.rot90(image, -self.stream.rotation // 90, (1, 2))
        return image

    # Position in the file

    def _open(self) -> None:
        self._stack.close()
        self._container = self._stack.enter_context(open_container(self.path))
        self._source = self._container.streams[self.stream.index]
        discard_other_streams(self._container, self._source)
        self._context = self._source.codec_context
        size = self.stream.width * self.stream.height
        if is_large(self.stream.width, self.stream.height):
            self._context.thread_count = 1  # each thread holds frames
        elif self._threads is not None or (self.stream.frames or 10**6) * size < _SMALL:
            self._context.thread_count = self._threads or 1
        else:
            self._context.thread_type = "AUTO"
            # Two more than processors: they keep decoding while frames are converted.
            self._context.thread_count = min(8, 2 + (os.cpu_count() or 1))
        self._intra = bool(self._context.codec.intra_only)
        # Some decoders (dav1d) read skip_frame only once, when they are opened.
        self._context.skip_frame = "DEFAULT"
        self._context.open(strict=False)
        self._packets.open(self._container, self._source)
        self._counted = 0
        self._reset()

    def _seek_packets(self, time: float) -> None:
        self._packets.seek(time)
        self._reset()

    def _reset(self) -> None:
        self._ready.clear()
        self._drained = False
        self._first_valid = self._sent = self._searched = -math.inf
        self._target = None

    def _seek(self, target: float, beyond: float = -1.0) -> float:
        """Seek to a key frame from which the frame on screen at ``target`` can be decoded.

        Searches further and further back, starting more than ``beyond`` seconds before. Returns
        the time of that key frame. If the file cannot be sought, opens it again from the start.
        """
        for back in (0.0, 2.0, 10.0, 60.0):
            if back <= beyond:
                continue
            if target - back <= self.stream.start:
                break
            try:
                self._seek_packets(target - back)
            except (av.error.FFmpegError, OverflowError):
                break
            key_frame = self._packets.to_key_frame()
            if key_frame is not None and key_frame <= target + CLOCK_SLACK:
                self._start_at(key_frame, target, back)
                return key_frame
        self._open()
        self._seek_gap = math.inf
        return self.stream.start

    def _start_at(self, key_frame: float, target: float, back: float) -> None:
        # Frames displayed before the key frame may refer to frames that were not decoded.
        self._first_valid = key_frame - 1e-9
        self._target, self._back = target, back
        self._sent = -math.inf

    def _seek_ahead(self, target: float, now: float) -> None:
        """Seek to the next sample; seek less often if the key frame lay before the last one."""
        key_frame = self._seek(target)
        if key_frame <= now:
            self._seek_gap = max(2 * self._seek_gap, 1.5 * (target - key_frame))

    def _skip_to_key_frame(self) -> bool:
        """Drop the packets before the last key frame if no sample time shows any of them.

        Not before the first frame is decoded: it stands for all sample times before it.
        """
        window = self._packets.window
        head = window[0][0]
        if head is None or self._sent == -math.inf or self._intra or self.sequential_only:
            return False
        if self._next_sample(head) <= self._searched:
            return False
        first = min((time for time, _ in window if time is not None))
        target = self._next_sample(first)
        if not self._searched < target < math.inf or target - first > self._seek_gap:
            return False
        self._searched = target
        self._packets.fill_beyond(target, _MAX_HELD)
        place = 0
        for number, (time, packet) in enumerate(window):
            if time is None or time < first:
                return False
            if packet.is_keyframe and self._sent < time <= target + CLOCK_SLACK:
                place = number
        if not place:
            return False
        self._decode(None)
        if self.sequential_only or self._restart_earlier():
            return True
        self._context.flush_buffers()
        for _ in range(place):
            window.popleft()
        self._start_at(window[0][0] or 0.0, target, 0.0)
        return True

    def _restart_earlier(self, time: float = math.inf) -> bool:
        """Start at an earlier key frame if the first decoded frame is too late, or missing.

        Then the key frame was damaged, or not a complete frame, as with intra refresh.
        """
        if self._target is None or time <= self._target + CLOCK_SLACK:
            return False
        self.sequential_only = True
        self._seek(self._target, beyond=self._back)
        return True

    def _next_sample(self, time: float) -> float:
        """Return the first sample time that a frame at ``time``, or a later one, is shown at."""
        number = bisect_left(self._times, time - CLOCK_SLACK)
        return self._times[number] if number < len(self._times) else math.inf

    def _is_shown(self, time: float | None) -> bool:
        """Whether the frame at ``time`` is, or may be, on screen at a sample time."""
        if time is None:
            return True
        sample, follows = self._next_sample(time), self._packets.successor(time)
        # The first frame after all sample times ends the last one.
        if follows is None or sample == math.inf or time <= self.stream.start + 1e-9:
            return True
        return sample < follows - CLOCK_SLACK

    def _next_frame(self) -> Any:
        """Decode until a frame comes out; None at the end of the file."""
        while not self._ready:
            if self._cancelled:
                return None
            self._packets.fill()
            window = self._packets.window
            if not window:
                if self._drained:
                    return None
                self._drained = True
                self._context.skip_frame = "DEFAULT"
                self._decode(self._packets.last)
                if self._drained:  # and reading was not restarted meanwhile
                    self._restart_earlier()
                continue
            shown = self._is_shown(window[0][0])
            if not shown and self._skip_to_key_frame():
                continue
            time, packet = self._packets.take()
            if shown or not self._intra:
                self._context.skip_frame = "DEFAULT" if shown else "NONREF"
                self._sent = max(self._sent, -math.inf if time is None else time)
                self._decode(packet)
        return self._ready.popleft()

    def _decode(self, packet: Any) -> None:
        try:
            frames = self._context.decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            self.damage.corrupt.add(None if packet is None else packet.dts)
            return
        for frame in frames:
            if self.stream.clock.interval is not None:
                seconds = self.stream.start + self._counted * self.stream.clock.interval
                frame.pts = round(seconds / self._source.time_base)
                self._counted += 1
            time = self._time(frame, math.inf)
            if time < self._first_valid:
                continue
            if time < math.inf and self._restart_earlier(time):
                return
            self._target = None
            self._ready.append(frame)
