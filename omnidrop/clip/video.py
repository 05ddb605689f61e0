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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import av.stream
import numpy as np
import torch
from torch import Tensor

from omnidrop.clip.probe import VideoStream
from omnidrop.clip.source import media_errors, open_container

# Containers round times to a millisecond or so; a frame due at t must not be missed by that.
CLOCK_SLACK = 5e-4
# Codecs reorder frames by at most 16; with this many packets known, so is every frame's successor.
_LOOK_AHEAD = 34
_JUMP = 3.0  # seconds between samples from which on seeking may pay
_HELD = 32 << 20  # bytes of packets held at most while looking for a key frame
_STILL = 1.0  # seconds without a frame that are worth a word
_TRIES = 50  # damaged stretches in a row before the rest of the file is given up
_SMALL = 320 * 240 * 60  # pixels in a clip below which starting threads costs more than it gains


@dataclass
class Damage:
    """What went wrong while reading a stream, filled in as it is read.

    ``ended`` is the moment, on the file's clock, at which the packets of the stream stop; ``gaps``
    are stretches, on the same clock, that hold no frame though they are long against the others.
    """

    corrupt: int = 0
    ended: float | None = None
    gaps: list[tuple[float, float]] = field(default_factory=list)


class FrameReader:
    """Decoder of the frames shown at given moments.

    Parameters
    ----------
    path : Path
    stream : VideoStream
        As probed.
    damage : Damage
        Gets the count of packets that could not be decoded.
    """

    def __init__(self, path: Path, stream: VideoStream, damage: Damage) -> None:
        self.path = path
        self.stream = stream
        self.damage = damage
        self._stack = ExitStack()
        self._container: Any = None
        self._source: Any = None
        self._context: Any = None
        self._scale = 1, 1  # the stream's time base
        self._intra = False
        self._wanted: Sequence[float] = ()
        self._jump_gap = _JUMP  # grows when a jump turns out not to have saved anything
        self._steady = False  # neither leap nor jump: key frames turned out no place to begin at
        self._packets: Iterator[Any] = iter(())
        self._window: deque[tuple[float | None, Any]] = deque()  # read, not yet decoded
        self._times: list[float] = []  # presentation times in the window and just behind it, sorted
        self._ready: deque[Any] = deque()  # decoded, not yet looked at
        self._last: Any = None
        self._ended = self._drained = False
        self._skip_before = -math.inf
        self._target: float | None = None  # moment gone to, until a frame has come out
        self._back = 0.0  # seconds before that moment from which a key frame was looked for
        self._leaps: deque[float] = deque()  # key frames leapt to, not yet looked at
        self._sent = -math.inf  # latest frame given to the decoder since it was empty
        self._searched = -math.inf  # wanted moment up to which a key frame was looked for
        self._position = -math.inf  # where the packets read so far end
        self._largest_gap = 0.0

    def frames(self, times: Sequence[float]) -> Iterator[tuple[int, Tensor]]:
        """Yield the frame shown at each moment.

        Parameters
        ----------
        times : sequence of float
            Ascending, in seconds on the file's clock.

        Yields
        ------
        number : int
            Index into ``times``. Moments after the last frame has gone are not yielded.
        frame : Tensor, uint8, (3, H, W)
            RGB, rotation applied. The same tensor comes again while the same frame is shown, and
            must not be written to. Not always contiguous.
        """
        self._wanted = times
        try:
            with media_errors(self.path):
                self._open()
                if times and times[0] > self.stream.start + 1.0:
                    self._seek(times[0])
                yield from self._shown(times)
        finally:
            self._stack.close()

    def _shown(self, times: Sequence[float]) -> Iterator[tuple[int, Tensor]]:
        held: Any = None
        image: Tensor | None = None
        now = -math.inf
        number = 0
        while number < len(times):
            if times[number] - now > self._jump_gap and now > -math.inf and not self._steady:
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
            since = now
            while self._leaps and self._leaps[0] <= time:
                since = max(now, self._leaps.popleft())
            if (
                time - since > max(_STILL, 20 / (self.stream.average_fps or 25.0))
                and held is not None
            ):
                self.damage.gaps.append((since, time))
            held, image, now = frame, None, time
        if held is None or number == len(times):
            return
        self.damage.ended = self._position
        for rest in range(number, len(times)):
            if times[rest] > self._position + max(0.5, self._largest_gap):
                return
            image = self._convert(held) if image is None else image
            yield rest, image

    def _time(self, frame: Any, now: float) -> float:
        if frame.pts is not None:
            return self._seconds(frame.pts)
        return max(now, self.stream.start) + 1.0 / (self.stream.average_fps or 25.0)

    def _seconds(self, ticks: int) -> float:
        # What float(ticks * time_base) gives, sooner.
        return ticks * self._scale[0] / self._scale[1]

    def _convert(self, frame: Any) -> Tensor:
        """Return a decoded frame as RGB, turned the way it is shown: uint8, (3, H, W)."""
        # By name, for PyAV 14 takes no numbers; without, full-range colours would be stretched.
        spread = {1: "MPEG", 2: "JPEG"}.get(int(frame.color_range))
        rgb = frame.reformat(format="rgb24", src_color_range=spread)
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
        base = self._source.time_base or Fraction(1)
        self._scale = base.numerator, base.denominator
        size = self.stream.width * self.stream.height
        if (self.stream.frames or 10**6) * size < _SMALL:
            self._context.thread_count = 1
        else:
            self._context.thread_type = "AUTO"
            # Two more than there are processors: they decode on while frames are converted.
            self._context.thread_count = min(8, 2 + (os.cpu_count() or 1))
        self._intra = bool(self._context.codec.intra_only)
        # Some decoders (dav1d) look at what to skip but once, when they are opened.
        self._context.skip_frame = "DEFAULT"
        self._context.open(strict=False)
        self._restart()

    def _restart(self) -> None:
        self._packets = self._container.demux(self._source)
        self._window.clear()
        self._times.clear()
        self._ready.clear()
        self._leaps.clear()
        self._ended = self._drained = False
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
            offset = math.floor((target - back) / self._source.time_base)
            try:
                self._container.seek(offset, stream=self._source)
            except (av.error.FFmpegError, OverflowError):
                break
            self._restart()
            while (packet := self._pull()) is not None:
                if packet.is_keyframe and packet.pts is not None:
                    break
            if packet is None:
                continue
            landed = self._seconds(packet.pts)
            if landed <= target + CLOCK_SLACK:
                self._land(landed, target, back)
                self._take(packet)
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
        head = self._window[0][0]
        if head is None or self._sent == -math.inf or self._intra or self._steady:
            return False
        if self._next_wanted(head) <= self._searched:
            return False
        first = min((time for time, _ in self._window if time is not None))
        target = self._next_wanted(first)
        if not self._searched < target < math.inf or target - first > self._jump_gap:
            return False
        self._searched = target
        held = sum(packet.size for _, packet in self._window)
        while self._times[-1] <= target + CLOCK_SLACK and held < _HELD and self._read():
            held += self._window[-1][1].size
        place = 0
        for number, (time, packet) in enumerate(self._window):
            if time is None or time < first:
                return False
            if packet.is_keyframe and self._sent < time <= target + CLOCK_SLACK:
                place = number
        if not place:
            return False
        self._decode(None)
        if self._steady or self._retreats():
            return True
        self._context.flush_buffers()
        for _ in range(place):
            self._window.popleft()
        landed = self._window[0][0] or 0.0
        self._leaps.append(landed)
        self._land(landed, target, 0.0)
        return True

    def _retreats(self, time: float = math.inf) -> bool:
        """Begin further back if the first frame out is due too late, or none has come.

        The key frame gone to was damaged, or no whole picture, as with intra refresh.
        """
        if self._target is None or time <= self._target + CLOCK_SLACK:
            return False
        self._steady = True
        self._seek(self._target, beyond=self._back)
        return True

    def _next_wanted(self, time: float) -> float:
        """Return the first wanted moment that a frame due at ``time``, or a later one, shows."""
        number = bisect_left(self._wanted, time - CLOCK_SLACK)
        return self._wanted[number] if number < len(self._wanted) else math.inf

    def _pull(self) -> Any:
        """Return the next packet of the file, or None at its end; damage is counted and skipped."""
        for _ in range(_TRIES):
            try:
                packet = next(self._packets, None)
            except av.error.EOFError:
                return None
            except av.error.FFmpegError:
                self.damage.corrupt += 1
                self._packets = self._container.demux(self._source)
                continue
            if packet is None or packet.size:
                return packet
            self._last = packet  # empty: tells the decoder that no more will come
        return None

    def _read(self) -> bool:
        """Put the next packet in the window; False at the end of the file."""
        packet = None if self._ended else self._pull()
        if packet is None:
            self._ended = True
            return False
        self._take(packet)
        return True

    def _take(self, packet: Any) -> None:
        """Put a packet in the window and note when its frame is due."""
        self.damage.corrupt += packet.is_corrupt
        time = None if packet.pts is None else self._seconds(packet.pts)
        self._window.append((time, packet))
        if time is None:
            return
        place = bisect_left(self._times, time)
        if place == len(self._times) and self._times:
            self._largest_gap = max(self._largest_gap, time - self._times[-1])
        self._times.insert(place, time)
        del self._times[: -(4 * _LOOK_AHEAD + len(self._window))]
        self._position = max(self._position, time + self._seconds(packet.duration or 0))

    def _is_shown(self, time: float | None) -> bool:
        """Whether a wanted moment shows the frame due at ``time``, or may do so."""
        if time is None:
            return True
        place = bisect_left(self._times, time + 1e-9)
        if place == len(self._times) or time <= self.stream.start + 1e-9:
            return True
        return self._next_wanted(time) < self._times[place] - CLOCK_SLACK

    def _next_frame(self) -> Any:
        """Decode until a frame comes out; None at the end of the file."""
        while not self._ready:
            while len(self._window) < _LOOK_AHEAD and self._read():
                pass
            if not self._window:
                if self._drained:
                    return None
                self._drained = True
                self._context.skip_frame = "DEFAULT"
                self._decode(self._last)
                if self._drained:  # and has not begun again meanwhile
                    self._retreats()
                continue
            shown = self._is_shown(self._window[0][0])
            if not shown and self._leap():
                continue
            time, packet = self._window.popleft()
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
            self.damage.corrupt += 1
            return
        for frame in frames:
            time = self._time(frame, math.inf)
            if time < self._skip_before:
                continue
            if time < math.inf and self._retreats(time):
                return
            self._target = None
            self._ready.append(frame)


def leave_out_others(container: Any, stream: Any) -> None:
    """Spare the demuxer reading streams that are not wanted, where PyAV can say so."""
    discard = getattr(av.stream, "Discard", None)
    if discard is not None:
        for other in container.streams:
            if other.index != stream.index:
                other.discard = discard.all
