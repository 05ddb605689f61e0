"""Frames of a video at given moments, as they would be on the screen then.

Decoding every frame of a clip to keep two a second costs more than the model. So: the decoder uses
several threads; frames that no sample shows and no other frame is built from are not decoded; nor
are those between a sample and the last key frame before the next one; only sampled frames are
converted to RGB; and where samples are far apart, the reader seeks. None of this changes a single
pixel of what is returned.
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
from omnidrop.clip.frames.packets import CLOCK_SLACK, Damage, Packets, leave_out_others
from omnidrop.clip.probe import VideoStream

_JUMP = 3.0  # seconds between samples from which on seeking may pay
_HELD = 32 << 20  # bytes of packets held at most while looking for a key frame
# By itself PyAV 17 starts threads for every frame it converts, which takes longer than converting.
_ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
_SMALL = 320 * 240 * 60  # pixels in a clip below which starting threads costs more than it gains


class FrameReader:
    """Decoder of the frames shown at given moments.

    Parameters
    ----------
    path : Path
    stream : VideoStream
        As probed.
    damage : Damage
        Gets the count of packets that could not be decoded.
    threads : int, optional
        Of the decoder; as many as suit the clip by default.

    Attributes
    ----------
    steady : bool
        Whether key frames turned out to be no place to begin at.
    """

    def __init__(
        self, path: Path, stream: VideoStream, damage: Damage, threads: int | None = None
    ) -> None:
        self.path = path
        self.stream = stream
        self.damage = damage
        self.steady = False  # if so, neither leap nor jump
        self._packets = Packets(damage, 1.0 / (stream.average_fps or 25.0))
        self._threads = threads
        self._cancelled = False
        self._stack = ExitStack()
        self._container: Any = None
        self._source: Any = None
        self._context: Any = None
        self._scaler = VideoReformatter()
        self._intra = False
        self._wanted: Sequence[float] = ()
        self._jump_gap = _JUMP  # grows when a jump turns out not to have saved anything
        self._ready: deque[Any] = deque()  # decoded, not yet looked at
        self._drained = False
        self._skip_before = -math.inf
        self._target: float | None = None  # moment gone to, until a frame has come out
        self._back = 0.0  # seconds before that moment from which a key frame was looked for
        self._sent = -math.inf  # latest frame given to the decoder since it was empty
        self._searched = -math.inf  # wanted moment up to which a key frame was looked for

    def key_frame_near(self, time: float) -> float | None:
        """Return when the key frame is due that seeking leads to; None if it leads to none.

        It lies before the moment, or where the file has no index also soon after. Opens the file;
        `frames` then goes to its first moment, too, through a key frame.
        """
        with media_errors(self.path):
            if self._container is None:
                self._open()
            try:
                self._go(time)
            except (av.error.FFmpegError, OverflowError):
                return None
            return self._packets.to_key_frame()

    @property
    def largest_gap(self) -> float:
        """Seconds between frames, at most: how long the last one may stand for what follows it."""
        return self._packets.largest_gap

    @largest_gap.setter
    def largest_gap(self, seconds: float) -> None:
        self._packets.largest_gap = seconds

    def close(self) -> None:
        """Close the file, where `frames` was never called, which does so by itself."""
        self._stack.close()

    def cancel(self) -> None:
        """Let `frames`, running in another thread, end before its next frame."""
        self._cancelled = True

    def frames(self, *stretches: Sequence[float]) -> Generator[tuple[int, Tensor], None, None]:
        """Yield the frame shown at each moment.

        Parameters
        ----------
        *stretches : sequence of float
            Moments, ascending, in seconds on the file's clock. To a second stretch and those that
            follow the reader goes through a key frame, wherever it is.

        Yields
        ------
        number : int
            Place of the moment, counted through all stretches. Moments after the last frame has
            gone are not yielded.
        frame : Tensor, uint8, (3, H, W)
            RGB, rotation applied. The same tensor comes again while the same frame is shown, and
            must not be written to. Not always contiguous.
        """
        first = 0
        try:
            with media_errors(self.path):
                moved = self._container is not None
                if not moved:
                    self._open()
                for times in stretches:
                    self._wanted = times
                    if moved or (times and times[0] > self.stream.start + 1.0):
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
            if times[number] - now > self._jump_gap and now > -math.inf and not self.steady:
                self._jump(times[number], now)
                held, image, now = None, None, -math.inf
            frame = self._next_frame()
            if frame is None:
                break
            time = self._time(frame, now)
            if time < now:  # a clock that runs backwards; what is on screen stays
                continue
            while number < len(times) and time > times[number] + CLOCK_SLACK:
                if image is None:  # before the first frame, the first frame is shown
                    image = self._convert(frame if held is None else held)
                yield number, image
                number += 1
            held, image, now = frame, None, time
        if held is None or number == len(times) or self._cancelled:
            return
        self.damage.ended = self._packets.position
        for rest in range(number, len(times)):
            if times[rest] > self._packets.position + max(0.5, self.largest_gap):
                return
            image = self._convert(held) if image is None else image
            yield rest, image

    def _time(self, frame: Any, now: float) -> float:
        if frame.pts is not None:
            return self._packets.seconds(frame.pts)
        return max(now, self.stream.start) + 1.0 / (self.stream.average_fps or 25.0)

    def _convert(self, frame: Any) -> Tensor:
        """Return a decoded frame as RGB, turned the way it is shown: uint8, (3, H, W)."""
        # By name, for PyAV 14 takes no numbers; without, full-range colours would be stretched.
        spread = {1: "MPEG", 2: "JPEG"}.get(int(frame.color_range))
        rgb = self._scaler.reformat(frame, format="rgb24", src_color_range=spread, **_ONE_THREAD)
        image = torch.from_numpy(np.ascontiguousarray(rgb.to_ndarray())).permute(2, 0, 1)
        if self.stream.mirrored:
            image = image.flip(2)
        if self.stream.rotation:  # torch copies the frame even where it turns it by nothing
            image = torch.rot90(image, -self.stream.rotation // 90, (1, 2))
        return image

    # Going through the file

    def _open(self) -> None:
        self._stack.close()
        self._container = self._stack.enter_context(open_container(self.path))
        self._source = self._container.streams[self.stream.index]
        leave_out_others(self._container, self._source)
        self._context = self._source.codec_context
        size = self.stream.width * self.stream.height
        if self._threads is not None or (self.stream.frames or 10**6) * size < _SMALL:
            self._context.thread_count = self._threads or 1
        else:
            self._context.thread_type = "AUTO"
            # Two more than there are processors: they decode on while frames are converted.
            self._context.thread_count = min(8, 2 + (os.cpu_count() or 1))
        self._intra = bool(self._context.codec.intra_only)
        # Some decoders (dav1d) look at what to skip but once, when they are opened.
        self._context.skip_frame = "DEFAULT"
        self._context.open(strict=False)
        self._packets.open(self._container, self._source)
        self._restart()

    def _go(self, time: float) -> None:
        self._packets.go(time)
        self._restart()

    def _restart(self) -> None:
        self._ready.clear()
        self._drained = False
        self._skip_before = self._sent = self._searched = -math.inf
        self._target = None

    def _seek(self, target: float, beyond: float = -1.0) -> float:
        """Go to a key frame from which the frame shown at ``target`` can be decoded.

        It is looked for ever further back, in steps of more than ``beyond`` seconds. Returns the
        time of that key frame. Where the file cannot be sought in, starts over.
        """
        for back in (0.0, 2.0, 10.0, 60.0):
            if back <= beyond:
                continue
            if target - back <= self.stream.start:
                break
            try:
                self._go(target - back)
            except (av.error.FFmpegError, OverflowError):
                break
            landed = self._packets.to_key_frame()
            if landed is not None and landed <= target + CLOCK_SLACK:
                self._land(landed, target, back)
                return landed
        self._open()
        self._jump_gap = math.inf
        return self.stream.start

    def _land(self, time: float, target: float, back: float) -> None:
        # Frames shown before the key frame may be built from others that are not there.
        self._skip_before = time - 1e-9
        self._target, self._back = target, back
        self._sent = -math.inf

    def _jump(self, target: float, now: float) -> None:
        landed = self._seek(target)
        if landed <= now:
            self._jump_gap = max(2 * self._jump_gap, 1.5 * (target - landed))

    def _leap(self) -> bool:
        """Drop the packets before a key frame if no wanted moment shows any of them.

        Not before a frame has been decoded: the first one stands for all moments before it.
        """
        window = self._packets.window
        head = window[0][0]
        if head is None or self._sent == -math.inf or self._intra or self.steady:
            return False
        if self._next_wanted(head) <= self._searched:
            return False
        first = min((time for time, _ in window if time is not None))
        target = self._next_wanted(first)
        if not self._searched < target < math.inf or target - first > self._jump_gap:
            return False
        self._searched = target
        self._packets.fill_beyond(target, _HELD)
        place = 0
        for number, (time, packet) in enumerate(window):
            if time is None or time < first:
                return False
            if packet.is_keyframe and self._sent < time <= target + CLOCK_SLACK:
                place = number
        if not place:
            return False
        self._decode(None)
        if self.steady or self._retreats():
            return True
        self._context.flush_buffers()
        for _ in range(place):
            window.popleft()
        self._land(window[0][0] or 0.0, target, 0.0)
        return True

    def _retreats(self, time: float = math.inf) -> bool:
        """Begin further back if the first frame out is due too late, or none has come.

        The key frame gone to was damaged, or no whole picture, as with intra refresh.
        """
        if self._target is None or time <= self._target + CLOCK_SLACK:
            return False
        self.steady = True
        self._seek(self._target, beyond=self._back)
        return True

    def _next_wanted(self, time: float) -> float:
        """Return the first wanted moment that a frame due at ``time``, or a later one, shows."""
        number = bisect_left(self._wanted, time - CLOCK_SLACK)
        return self._wanted[number] if number < len(self._wanted) else math.inf

    def _is_shown(self, time: float | None) -> bool:
        """Whether a wanted moment shows the frame due at ``time``, or may do so."""
        if time is None:
            return True
        wanted, follows = self._next_wanted(time), self._packets.successor(time)
        # The first frame behind all moments ends the last one.
        if follows is None or wanted == math.inf or time <= self.stream.start + 1e-9:
            return True
        return wanted < follows - CLOCK_SLACK

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
                if self._drained:  # and has not begun again meanwhile
                    self._retreats()
                continue
            shown = self._is_shown(window[0][0])
            if not shown and self._leap():
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
            time = self._time(frame, math.inf)
            if time < self._skip_before:
                continue
            if time < math.inf and self._retreats(time):
                return
            self._target = None
            self._ready.append(frame)
