"""From stored times to the times of the clip: the one place that corrects the clock of a file.

Recordings are joined byte by byte, live streams reconnect, a camera writes the hour of the day into
one of its streams, raw streams hold no times at all. Then stored times restart, leap, or are
missing. `find_clocks` looks at the packets of all streams together, because a leap of one stream
alone is a gap, and a leap of all is none. Each stream gets a `StreamClock`, and whoever reads the
stream passes its packets through it; everything behind it sees one steady clock.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

__all__ = ["PLAIN", "Corrector", "PacketTimes", "StreamClock", "aligned", "find_clocks"]

_BACK = 0.5  # seconds by which a packet may lie before all recent ones of its stream
_RECENT = 17  # packets: codecs reorder by at most 16 frames
_LEAP = 10.0  # seconds without a packet of any stream that are taken for a leap of a live stream
_LEAP_OF_FILES = 3600.0  # the same where a picture may stand still for as long as it likes
_DISJOINT = 600.0  # seconds between two streams of a clip that belong to two clocks
_OVERLAP = 0.1  # seconds by which a stream may overlap at a joint; it is cut off

#: Formats whose packets lie in the file in the order of time, and whose clock may break: broadcast,
#: live streams, and what can be joined byte by byte.
BROKEN_CLOCKS = frozenset({"mpegts", "mpeg", "flv", "matroska", "webm"})
_LIVE = frozenset({"mpegts", "mpeg", "flv"})


@dataclass(frozen=True)
class StreamClock:
    """How the stored times of one stream become seconds of a steady clock.

    Parameters
    ----------
    shift : float
        Seconds added to every stored time.
    breaks : tuple of (int, float)
        From which byte of the file on how many more seconds are added; ascending positions.
    interval : float or None
        Seconds between frames that carry no times and are counted; None if they carry times.
    sequential : bool
        Whether the stream can only be read from its beginning: stored times are not unique.
    """

    shift: float = 0.0
    breaks: tuple[tuple[int, float], ...] = ()
    interval: float | None = None
    sequential: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether stored times are right as they are."""
        return not self.shift and not self.breaks

    def stored(self, time: float) -> float:
        """Return the stored time of a moment before the first break, to seek to."""
        return time - self.shift


PLAIN = StreamClock()
"""The clock of a stream whose stored times are right."""


class Corrector:
    """Corrects packets of one stream, in the order of the file.

    Parameters
    ----------
    clock : StreamClock
    time_base : Fraction
        Of the stream.

    Attributes
    ----------
    joints : int
        Breaks of the clock that were passed.
    """

    def __init__(self, clock: StreamClock, time_base: Fraction | None) -> None:
        self._clock = clock
        self._base = time_base or Fraction(1)
        self._positions = [position for position, _ in clock.breaks]
        self._offsets = [self._ticks(clock.shift)]
        self._offsets += [self._ticks(clock.shift + offset) for _, offset in clock.breaks]
        self._part = 0
        self.joints = 0

    def _ticks(self, seconds: float) -> int:
        return round(seconds / self._base)

    def __call__(self, packet: Any) -> None:
        """Set the packet's times to the steady clock."""
        if packet.pos is not None and packet.pos >= 0:
            part = bisect_right(self._positions, packet.pos)
            self.joints += part != self._part
            self._part = part
        offset = self._offsets[self._part]
        if packet.pts is not None:
            packet.pts += offset
        if packet.dts is not None:
            packet.dts += offset


@dataclass
class PacketTimes:
    """The packets of one stream in the order of the file: seconds, and bytes from its start.

    Attributes
    ----------
    shown : list of float
        Presentation time of each packet that has one.
    positions : list of int or None
    length : float
        Seconds of the packet that is shown last, as far as known.
    reordered : bool
        Whether packets are stored in another order than they are shown in.
    packets : int
        How many there are, those without times included.
    late_discards : bool
        Whether packets within the stream are not shown: it has several edits.
    """

    shown: list[float] = field(default_factory=list)
    positions: list[int | None] = field(default_factory=list)
    length: float = 0.0
    reordered: bool = False
    packets: int = 0
    late_discards: bool = False

    def filled_positions(self) -> np.ndarray:
        """Return positions, each unknown one as the one before it: int64 (N,)."""
        filled, last = [], 0
        for position in self.positions:
            last = last if position is None else position
            filled.append(last)
        return np.array(filled, dtype=np.int64)


def find_clocks(
    streams: dict[int, PacketTimes], video: int | None, formats: set[str], notices: list[str]
) -> dict[int, StreamClock]:
    """Find where the clock of a file breaks, and correct the times of its packets.

    Parameters
    ----------
    streams : dict
        By the index of the stream. ``shown`` of each is corrected in place.
    video : int or None
        Index of the video stream; parts of a file are joined where its pictures join.
    formats : set of str
        libav's names of the container.
    notices : list of str
        Receives what was found.

    Returns
    -------
    dict
        A clock for each stream.
    """
    clocks = {i: StreamClock(sequential=times.late_discards) for i, times in streams.items()}
    if not formats & BROKEN_CLOCKS:
        _close_leaps(streams, clocks, notices)
        return clocks
    breaks = _breaks(streams, _LEAP if formats & _LIVE else _LEAP_OF_FILES)
    if not breaks:
        return clocks
    offsets = _offsets(streams, breaks, video)
    for index, times in streams.items():
        if times.shown:
            part = np.searchsorted(breaks, times.filled_positions(), side="right")
            times.shown = (np.array(times.shown) + np.array([0.0, *offsets])[part]).tolist()
        clocks[index] = replace(
            clocks[index], breaks=tuple(zip(breaks, offsets, strict=True)), sequential=True
        )
    count = "once" if len(breaks) == 1 else f"{len(breaks)} times"
    notices.append(
        f"The file's clock breaks {count}, as in joined recordings; the parts are read as one "
        "continuous clip."
    )
    return clocks


def _close_leaps(
    streams: dict[int, PacketTimes], clocks: dict[int, StreamClock], notices: list[str]
) -> None:
    """Close leaps of single streams during which the other streams hold next to nothing."""
    for index, times in streams.items():
        shown = np.array(times.shown)
        steps = np.diff(shown)
        places = np.flatnonzero(steps > _LEAP_OF_FILES)
        if not len(places):
            continue
        positions = times.filled_positions()
        usual = float(np.median(steps))
        breaks: list[tuple[int, float]] = []
        offset = 0.0
        for place in places.tolist():
            first, last = shown[place], shown[place + 1]
            others = [np.array(other.shown) for i, other in streams.items() if i != index]
            reach = max((t[(t > first) & (t < last)].max(initial=first) for t in others), default=0)
            if reach - first < (last - first) / 2:
                offset -= float(last - first) - usual
                breaks.append((int(positions[place + 1]), offset))
                shown[place + 1 :] -= last - first - usual
        if breaks and (np.diff([position for position, _ in breaks]) > 0).all():
            times.shown = shown.tolist()
            clocks[index] = replace(clocks[index], breaks=tuple(breaks), sequential=True)
            notices.append("The clock of one stream leaps by hours; it is read without the leap.")


def _breaks(streams: dict[int, PacketTimes], longest: float) -> list[int]:
    """Return the positions at which the clock restarts, or leaps by more than ``longest``."""
    if not any(_is_suspicious(times, longest) for times in streams.values()):
        return []
    events = sorted(
        (position, number, index, time)
        for index, times in streams.items()
        for number, (position, time) in enumerate(
            zip(times.filled_positions().tolist(), times.shown, strict=True)
        )
    )
    found: list[int] = []
    recent: dict[int, deque[float]] = {}  # per stream, within the current part
    latest = math.inf
    for position, _, index, time in events:
        back = index in recent and time < min(recent[index]) - _BACK
        if (back or time > latest + longest) and (not found or position > found[-1]):
            found.append(position)
            recent, latest = {}, time
        recent.setdefault(index, deque(maxlen=_RECENT)).append(time)
        latest = time if latest == math.inf else max(latest, time)
    return found


def _is_suspicious(times: PacketTimes, longest: float) -> bool:
    if len(times.shown) < 2:
        return False
    steps = np.diff(times.shown)
    return bool((steps < -_BACK).any() or (steps > longest).any())


def _offsets(streams: dict[int, PacketTimes], breaks: list[int], video: int | None) -> list[float]:
    """Return per part but the first what must be added to its times."""
    spans: list[dict[int, tuple[float, float]]] = [{} for _ in range(len(breaks) + 1)]
    for index, times in streams.items():
        shown = np.array(times.shown)
        parts = np.searchsorted(breaks, times.filled_positions(), side="right")
        for part in np.unique(parts):
            inside = np.sort(shown[parts == part])
            step = float(np.median(np.diff(inside))) if len(inside) > 1 else times.length
            spans[part][index] = (float(inside[0]), float(inside[-1]) + max(0.0, step))
    offsets: list[float] = []
    ends = {index: end for index, (_, end) in spans[0].items()}
    for span in spans[1:]:
        wanted = {i: ends[i] - start for i, (start, _) in span.items() if i in ends}
        if not wanted:
            wanted = dict.fromkeys(span, max(ends.values()) - min(s for s, _ in span.values()))
        offset = max(wanted.values())
        if video in wanted and offset - wanted[video] <= _OVERLAP:
            offset = wanted[video]
        offsets.append(offset)
        ends |= {index: end + offset for index, (_, end) in span.items()}
        reach = max(ends.values()) - _OVERLAP  # a stream that has ended does not hold others back
        ends = {index: max(end, reach) for index, end in ends.items()}
    return offsets


def aligned(spans: dict[int, tuple[float, float | None]], notices: list[str]) -> dict[int, float]:
    """Return the seconds by which streams on another clock than the first must be shifted.

    Parameters
    ----------
    spans : dict
        Start and duration (None if unknown) of each stream, in seconds.
    notices : list of str
        Receives what was found.

    Returns
    -------
    dict
        Only streams that are shifted: those that begin long after all others have ended.
    """
    shifts: dict[int, float] = {}
    end, first = None, 0.0
    for index, (start, duration) in sorted(spans.items(), key=lambda item: item[1][0]):
        if end is None:
            first = start
        elif start - end > _DISJOINT:
            shifts[index] = first - start
            continue
        end = max(start + (duration or 0.0), -float("inf") if end is None else end)
    if shifts:
        notices.append(
            "Video and audio are on different clocks, far apart; both are taken to begin together."
        )
    return shifts
