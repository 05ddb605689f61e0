"""A clip's frames by several readers side by side, each with stretches of its own.

Threads inside one decoder wait for each other, since nearly every frame is built from the one
before. A key frame is built from nothing. So the wanted moments are cut into stretches where key
frames lie, and readers of one thread each go from stretch to stretch and resize what they find.
Frames and their order are those of one reader; how far one gets ahead of the others is bounded.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from omnidrop.clip.frames.packets import CLOCK_SLACK, Damage
from omnidrop.clip.frames.reader import FrameReader
from omnidrop.clip.prefetch import Ahead, Gate
from omnidrop.clip.probe import VideoStream

# Pixels shown within a span below which opening the file again costs more than it gains.
_WORTH = 2e8
# Wanted moments that a stretch holds at least, and the seconds, so that going there pays.
_MOMENTS, _SHORT, _LONG = 8, 2.0, 8.0
_STRETCHES = 6  # for each reader, where the seconds allow
_UNEVEN = 1.3  # times its even share that a reader may have
# Readers at most, also for frames above 1080p: each holds up to 17 decoded frames.
_MOST, _MOST_LARGE, _LARGE = 4, 2, 1920 * 1088

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Share:
    """What one reader reads: its stretches, and the place of each among those of all readers."""

    places: list[int]
    stretches: list[Sequence[float]]


def shown_frames(
    path: Path,
    stream: VideoStream,
    times: Sequence[float],
    damage: Damage,
    *,
    change: Change,
    ahead: int,
    gate: Gate,
) -> Generator[Tensor, None, None]:
    """Yield the frame shown at each moment, changed.

    Parameters
    ----------
    path : Path
    stream : VideoStream
        As probed.
    times : sequence of float
        Ascending, in seconds on the file's clock.
    damage : Damage
        Gets what went wrong.
    change : callable
        Given a frame as `FrameReader.frames` yields it, makes what is yielded instead; called once
        a frame, from several threads.
    ahead : int
        Changed frames that each reader may hold until those before them have been yielded.
    gate : Gate
        Where readers wait before each frame.

    Yields
    ------
    Tensor
        Of each moment in order, up to the last frame; the same one while the same frame is shown.
    """
    readers: list[FrameReader] = []
    if _is_worth_it(stream, times):
        # One of them looks for key frames first; the last, which does not begin at the beginning.
        readers = [FrameReader(path, stream, Damage(), threads=1) for _ in range(_most(stream))]
        shares = _shares(readers[-1], times, len(readers))
        if not shares:
            readers[-1].close()
        readers = readers[len(readers) - len(shares) :]
    if not readers:
        yield from _decoded_beside(FrameReader(path, stream, damage), times, change, gate)
        return
    done = 0
    with closing(_in_turns(readers, shares, change, ahead, gate)) as frames:
        try:
            for frame in frames:
                yield frame
                done += 1
        finally:
            damage.add(*(reader.damage for reader in readers))
    if done == len(times):
        return
    # The file has ended, or key frames are no place to begin at; how to go on, one reader knows
    # that has seen the last frame.
    last = FrameReader(path, stream, Damage())
    last.largest_gap = max(reader.largest_gap for reader in readers)
    first = max(0, done - 1)
    with closing(_decoded_beside(last, times[first:], change, gate)) as rest:
        try:
            for number, frame in enumerate(rest, first):
                if number >= done:
                    yield frame
        finally:
            damage.add(last.damage)


def _changed(frames: Iterator[tuple[int, Tensor]], change: Change) -> Generator[Tensor, None, None]:
    source = changed = None
    for _, image in frames:
        if image is not source:  # the same tensor means the same frame again
            source, changed = image, change(image)
        assert changed is not None
        yield changed


def _decoded_beside(
    reader: FrameReader, times: Sequence[float], change: Change, gate: Gate
) -> Generator[Tensor, None, None]:
    """Let one reader go on while the frame before is changed."""
    frames = Ahead(reader.frames(times), 2, "omnidrop-decoder", gate)
    try:
        yield from _changed(frames, change)
    finally:
        reader.cancel()
        frames.close()


def _in_turns(
    readers: Sequence[FrameReader],
    shares: Sequence[Share],
    change: Change,
    ahead: int,
    gate: Gate,
) -> Generator[Tensor, None, None]:
    """Let the readers work, and yield what they find in order, up to where one finds no more."""
    threads: list[Ahead[Tensor]] = []
    try:
        for reader, share in zip(readers, shares, strict=True):
            frames = _while_sound(reader, share.stretches, change)
            threads.append(Ahead(frames, ahead, "omnidrop-decoder", gate))
        turns = sorted(
            (place, len(stretch), number)
            for number, share in enumerate(shares)
            for place, stretch in zip(share.places, share.stretches, strict=True)
        )
        for _, length, number in turns:
            for _ in range(length):
                frame = next(threads[number], None)
                if frame is None:
                    return
                yield frame
    finally:
        for reader in readers:
            reader.cancel()
        for thread in threads:
            thread.close()


def _while_sound(
    reader: FrameReader, stretches: Sequence[Sequence[float]], change: Change
) -> Generator[Tensor, None, None]:
    """Yield changed frames until the reader finds that key frames are no place to begin at."""
    with closing(reader.frames(*stretches)) as frames:
        for frame in _changed(frames, change):
            if reader.steady:
                return
            yield frame


# Who reads what


def _most(stream: VideoStream) -> int:
    most = _MOST if stream.width * stream.height <= _LARGE else _MOST_LARGE
    return min(most, os.cpu_count() or 1)


def _is_worth_it(stream: VideoStream, times: Sequence[float]) -> bool:
    shown = (times[-1] - times[0]) * (stream.average_fps or 25.0) if times else 0.0
    return _most(stream) > 1 and shown * stream.width * stream.height >= _WORTH


def _shares(scout: FrameReader, times: Sequence[float], most: int) -> list[Share]:
    """Split the moments among readers; none where one reader does as well."""
    span = times[-1] - times[0]
    stretches = _stretches(scout, times, min(max(span / most / _STRETCHES, _SHORT), _LONG))
    for readers in range(min(most, len(stretches)), 1, -1):
        loads, shares = [0.0] * readers, [Share([], []) for _ in range(readers)]
        for place, stretch in enumerate(stretches):
            number = loads.index(min(loads))
            loads[number] += stretch[-1] - stretch[0] + span / len(times)
            shares[number].places.append(place)
            shares[number].stretches.append(stretch)
        if max(loads) <= _UNEVEN * sum(loads) / readers:
            return shares
    return []


def _stretches(scout: FrameReader, times: Sequence[float], seconds: float) -> list[Sequence[float]]:
    """Cut the moments where key frames lie, into stretches of about so many seconds or more."""
    stretches: list[Sequence[float]] = []
    first = look = 0
    while True:
        look = max(look + _MOMENTS, bisect_left(times, times[look] + seconds))
        key = scout.key_frame_near(times[look]) if look < len(times) else None
        if key is None:
            return [*stretches, times[first:]]
        cut = bisect_left(times, key - CLOCK_SLACK)
        if first < cut < len(times):
            stretches.append(times[first:cut])
            first = look = cut
