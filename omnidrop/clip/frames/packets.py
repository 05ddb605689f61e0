"""The packets of a video stream, read some way ahead of the decoder, and when their frames are due.

A frame's end is the beginning of the next one, and frames are not stored in the order shown: who
wants to know which packets can be left out must have seen the packets behind them.
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

# Containers round times to a millisecond or so; a frame due at t must not be missed by that.
CLOCK_SLACK = 5e-4
# Codecs reorder frames by at most 16; with this many packets known, so is every frame's successor.
_LOOK_AHEAD = 34
_STILL = 1.0  # seconds without a frame that are worth a word
_TRIES = 50  # damaged stretches in a row before the rest of the file is given up


@dataclass
class Damage:
    """What went wrong while reading a stream, filled in as it is read.

    ``corrupt`` are the packets that could not be read or decoded, by where they are; ``ended`` is
    the moment, on the file's clock, at which the packets of the stream stop; ``gaps`` are
    stretches, on the same clock, that hold no frame though they are long against the others.
    """

    corrupt: set[object] = field(default_factory=set)
    ended: float | None = None
    gaps: list[tuple[float, float]] = field(default_factory=list)

    def add(self, *others: Damage) -> None:
        """Take over what others have met; what two have met is counted once."""
        self.corrupt.update(*(other.corrupt for other in others))
        self.gaps = sorted({*self.gaps, *(gap for other in others for gap in other.gaps)})
        ends = [other.ended for other in (self, *others) if other.ended is not None]
        self.ended = max(ends, default=None)


class Packets:
    """The packets of one stream.

    Parameters
    ----------
    damage : Damage
        Gets packets that cannot be read, and gaps.
    usual : float
        Seconds from a frame to the next, usually.

    Attributes
    ----------
    window : deque of (float or None, Packet)
        Read and not yet taken, in the order of the file, with the times their frames are due.
    last : Packet or None
        The empty one that tells the decoder that no more will come, once it was met.
    position : float
        Where the packets read so far end, in seconds on the file's clock.
    largest_gap : float
        Seconds from a frame to the next, at most.
    """

    def __init__(self, damage: Damage, usual: float) -> None:
        self.window: deque[tuple[float | None, Any]] = deque()
        self.last: Any = None
        self.position = -math.inf
        self.largest_gap = 0.0
        self._damage = damage
        self._worth_a_word = max(_STILL, 20 * usual)
        self._container: Any = None
        self._source: Any = None
        self._scale = 1, 1  # the stream's time base
        self._stream: Iterator[Any] = iter(())
        self._times: list[float] = []  # of frames in the window and just behind it, sorted
        self._ended = False

    def open(self, container: Any, source: Any) -> None:
        """Begin with a stream of a container that was just opened."""
        self._container, self._source = container, source
        base = source.time_base or Fraction(1)
        self._scale = base.numerator, base.denominator
        self._restart()

    def go(self, time: float) -> None:
        """Let the file be read from about a moment on.

        Raises
        ------
        av.error.FFmpegError, OverflowError
            If it cannot be sought in.
        """
        offset = math.floor((time + CLOCK_SLACK) / self._source.time_base)
        self._container.seek(offset, stream=self._source)
        self._restart()

    def _restart(self) -> None:
        self._stream = self._container.demux(self._source)
        self.window.clear()
        self._times.clear()
        self._ended = False

    def seconds(self, ticks: int) -> float:
        """Return what ``float(ticks * time_base)`` gives, sooner."""
        return ticks * self._scale[0] / self._scale[1]

    def to_key_frame(self) -> float | None:
        """Drop packets up to the next key frame, which enters the window; return when it is due."""
        while (packet := self._pull()) is not None:
            if packet.is_keyframe and packet.pts is not None:
                self._take(packet)
                return self.seconds(packet.pts)
        return None

    def fill(self) -> None:
        """Read as far ahead as it takes to know every frame's successor."""
        while len(self.window) < _LOOK_AHEAD and self._read():
            pass

    def fill_beyond(self, time: float, most: int) -> None:
        """Read until a frame after a moment is known, or so many bytes are held."""
        held = sum(packet.size for _, packet in self.window)
        while self._times[-1] <= time + CLOCK_SLACK and held < most and self._read():
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
        """Take the first packet out of the window; where no frame follows for long, note a gap."""
        time, packet = self.window.popleft()
        follows = None if time is None else self.successor(time)
        if time is not None and follows is not None and follows - time > self._worth_a_word:
            self._damage.gaps.append((time, follows))
        return time, packet

    def successor(self, time: float) -> float | None:
        """Return when the frame after the one due at ``time`` is due, or None at the end."""
        place = bisect_left(self._times, time + 1e-9)
        return self._times[place] if place < len(self._times) else None

    def _pull(self) -> Any:
        """Return the next packet of the file, or None at its end; damage is noted and skipped."""
        for _ in range(_TRIES):
            try:
                packet = next(self._stream, None)
            except av.error.EOFError:
                return None
            except av.error.FFmpegError:
                self._damage.corrupt.add(("after", self.position))
                self._stream = self._container.demux(self._source)
                continue
            if packet is None or packet.size:
                return packet
            self.last = packet
        return None

    def _take(self, packet: Any) -> None:
        """Put a packet in the window and note when its frame is due."""
        if packet.is_corrupt:
            self._damage.corrupt.add(packet.dts)
        time = None if packet.pts is None else self.seconds(packet.pts)
        self.window.append((time, packet))
        if time is None:
            return
        place = bisect_left(self._times, time)
        if place == len(self._times) and self._times:
            self.largest_gap = max(self.largest_gap, time - self._times[-1])
        self._times.insert(place, time)
        del self._times[: -(4 * _LOOK_AHEAD + len(self.window))]
        self.position = max(self.position, time + self.seconds(packet.duration or 0))


def leave_out_others(container: Any, stream: Any) -> None:
    """Spare the demuxer reading streams that are not wanted, where PyAV can say so."""
    discard = getattr(av.stream, "Discard", None)
    if discard is not None:
        for other in container.streams:
            if other.index != stream.index:
                other.discard = discard.all
