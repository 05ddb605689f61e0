"""The packets of a video stream, read ahead of the decoder, with their presentation times.

A frame ends when the next one starts, and frames are not stored in display order. So the reader
must know the following packets before it can skip one.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import av.error
import av.stream

from omnidrop.clip.clock import PLAIN, Corrector, StreamClock
from omnidrop.clip.container import demux

# Containers round times to about a millisecond; a frame at t must not be missed for that.
CLOCK_SLACK = 5e-4
# Codecs reorder by at most 16 frames; with this many packets every frame's successor is known.
_LOOK_AHEAD = 34
_MIN_GAP = 1.0  # seconds without a frame that are reported as a gap
_TRIES = 50  # damaged reads in a row before the rest of the file is given up


@dataclass
class Damage:
    """Damage found while reading a stream; filled in as it is read.

    Attributes
    ----------
    corrupt : set
        Positions of packets that could not be read or decoded.
    ended : float or None
        Time on the file's clock at which the stream's packets end.
    gaps : list of (float, float)
        Spans on the same clock without a frame, long compared with the frame interval.
    not_numbers : int
        Audio samples that are no numbers, or beyond any loudness; they are read as silence.
    inverted : bool
        Whether an audio channel was inverted, because it would have cancelled another.
    leapt : float
        Seconds by which the audio's clock leaps ahead, too many to be a gap; they are left out.
    """

    corrupt: set[object] = field(default_factory=set)
    ended: float | None = None
    gaps: list[tuple[float, float]] = field(default_factory=list)
    not_numbers: int = 0
    inverted: bool = False
    leapt: float = 0.0

    def add(self, *others: Damage) -> None:
        """Merge the damage found by other readers; what two have met is counted once."""
        self.corrupt.update(*(other.corrupt for other in others))
        self.gaps = sorted({*self.gaps, *(gap for other in others for gap in other.gaps)})
        ends = [other.ended for other in (self, *others) if other.ended is not None]
        self.ended = max(ends, default=None)


class Packets:
    """The packets of one stream.

    Parameters
    ----------
    damage : Damage
        Receives packets that cannot be read, and gaps.
    interval : float
        Usual seconds between frames.
    clock : StreamClock
        Applied to every packet; all times here are on the steady clock it gives.

    Attributes
    ----------
    window : deque of (float or None, Packet)
        Read and not yet taken, in file order, with the presentation times of their frames.
    last : Packet or None
        The empty packet that flushes the decoder, once it was read.
    position : float
        End of the packets read so far, in seconds on the file's clock.
    largest_gap : float
        Longest seconds between frames.
    """

    def __init__(self, damage: Damage, interval: float, clock: StreamClock = PLAIN) -> None:
        self.window: deque[tuple[float | None, Any]] = deque()
        self.last: Any = None
        self.position = -math.inf
        self.largest_gap = 0.0
        self._damage = damage
        self._clock = clock
        self._correct: Corrector | None = None
        self._before: deque[int | None] = deque(maxlen=3)  # decoding times of packets just read
        self._min_gap = max(_MIN_GAP, 20 * interval)
        self._container: Any = None
        self._source: Any = None
        self._scale = 1, 1  # the stream's time base
        self._stream: Iterator[Any] = iter(())
        self._times: list[float] = []  # of frames in the window and just before it, sorted
        self._ended = False

    def open(self, container: Any, source: Any) -> None:
        """Start with a stream of a container that was just opened."""
        self._container, self._source = container, source
        base = source.time_base or Fraction(1)
        self._scale = base.numerator, base.denominator
        self._correct = None if self._clock.is_plain else Corrector(self._clock, base)
        self._restart()

    def seek(self, time: float) -> None:
        """Continue reading at about ``time``.

        Raises
        ------
        av.error.FFmpegError, OverflowError
            If the file cannot be sought.
        """
        stored = self._clock.stored(time + CLOCK_SLACK)
        offset = math.floor(stored / self._source.time_base)
        self._container.seek(offset, stream=self._source)
        self._restart()

    def _restart(self) -> None:
        self._stream = demux(self._container, self._source)
        self.window.clear()
        self._times.clear()
        self._ended = False

    def seconds(self, ticks: int) -> float:
        """Return ``float(ticks * time_base)``, faster."""
        return ticks * self._scale[0] / self._scale[1]

    def to_key_frame(self) -> float | None:
        """Drop packets up to the next key frame, put it in the window, and return its time."""
        while (packet := self._pull()) is not None:
            if packet.is_keyframe and packet.pts is not None:
                self._take(packet)
                return self.seconds(packet.pts)
        return None

    def fill(self) -> None:
        """Read far enough ahead to know every frame's successor."""
        while len(self.window) < _LOOK_AHEAD and self._read():
            pass

    def fill_beyond(self, time: float, most: int) -> None:
        """Read until a frame after ``time`` is known, or ``most`` bytes are held."""
        held = sum(packet.size for _, packet in self.window)
        while (
            (not self._times or self._times[-1] <= time + CLOCK_SLACK)
            and held < most
            and self._read()
        ):
            held += self.window[-1][1].size

    def _read(self) -> bool:
        """Put the next packet in the window; False at the end of the file."""
        packet = None if self._ended else self._pull()
        if packet is None:
            self._ended = True
            return False
        self._take(packet)
        return True

    def take(self) -> tuple[float | None, Any]:
        """Remove and return the first packet of the window; record a gap after it."""
        time, packet = self.window.popleft()
        follows = None if time is None else self.successor(time)
        if time is not None and follows is not None and follows - time > self._min_gap:
            self._damage.gaps.append((time, follows))
        return time, packet

    def successor(self, time: float) -> float | None:
        """Return the time of the frame after the one at ``time``, or None at the end."""
        place = bisect_left(self._times, time + 1e-9)
        return self._times[place] if place < len(self._times) else None

    def _pull(self) -> Any:
        """Return the next packet of the file, or None at its end; record and skip damage."""
        for _ in range(_TRIES):
            try:
                packet = next(self._stream, None)
            except av.error.EOFError:
                return None
            except av.error.FFmpegError:
                self._damage.corrupt.add(("after", self.position))
                self._stream = demux(self._container, self._source)
                continue
            if packet is None:
                return None
            if packet.size:
                if self._correct is not None:
                    self._pass(packet, self._correct)
                return packet
            self.last = packet
        return None

    def _pass(self, packet: Any, correct: Corrector) -> None:
        """Correct a packet's times; those before a joint are not damaged, though they look so."""
        passed = correct.joints
        correct(packet)
        if correct.joints > passed:
            self._damage.corrupt.difference_update(self._before)
            self._before.clear()
        self._before.append(packet.dts)

    def _take(self, packet: Any) -> None:
        """Put a packet in the window and record the time of its frame."""
        if packet.is_corrupt:
            self._damage.corrupt.add(packet.dts)
        # What an edit list leaves out is decoded, and never shown.
        hidden = packet.pts is None or packet.is_discard
        time = None if hidden else self.seconds(packet.pts)
        self.window.append((time, packet))
        if time is None:
            return
        place = bisect_left(self._times, time)
        if place == len(self._times) and self._times:
            self.largest_gap = max(self.largest_gap, time - self._times[-1])
        self._times.insert(place, time)
        del self._times[: -(4 * _LOOK_AHEAD + len(self.window))]
        self.position = max(self.position, time + self.seconds(packet.duration or 0))


def discard_other_streams(container: Any, stream: Any) -> None:
    """Let the demuxer skip all other streams, if this PyAV supports it."""
    discard = getattr(av.stream, "Discard", None)
    if discard is not None:
        for other in container.streams:
            if other.index != stream.index:
                other.discard = discard.all
