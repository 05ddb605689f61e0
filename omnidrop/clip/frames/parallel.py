"""A clip's frames by several readers in parallel, each with its own spans.

Threads inside one decoder wait for each other, because nearly every frame refers to the one
before. A key frame refers to none. So the sample times are split into spans at key frames, and
single-threaded readers each decode and resize their own spans. The frames and their order are
those of one reader; how far a reader may run ahead is bounded.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from omnidrop.clip.frames.large import is_large
from omnidrop.clip.frames.packets import CLOCK_SLACK, Damage
from omnidrop.clip.frames.reader import FrameReader
from omnidrop.clip.prefetch import Gate, Prefetch
from omnidrop.clip.probe import VideoStream

_MIN_PIXELS = 2e8  # pixels to decode below which opening the file again costs more than it saves
_MIN_SAMPLES = 8  # sample times in a span, at least, so that seeking to it pays
_MIN_SECONDS = 2.0  # shortest span
_MAX_SECONDS = 8.0  # length above which no longer spans are asked for
_SPANS_PER_READER = 6  # where the seconds allow
_MAX_IMBALANCE = 1.3  # load of the busiest reader, as a multiple of an even share
_MAX_READERS = 4  # each holds up to 17 decoded frames
_MAX_READERS_LARGE = 2  # for frames above `_LARGE`
_LARGE = 1920 * 1088  # pixels of a frame

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Share:
    """What one reader reads: its spans, and the index of each among the spans of all readers."""

    places: list[int]
    spans: list[Sequence[float]]


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
    """Yield the frame on screen at each sample time, processed by ``change``.

    Parameters
    ----------
    path : Path
    stream : VideoStream
        As probed.
    times : sequence of float
        Ascending, in seconds on the file's clock.
    damage : Damage
        Receives damage found while reading.
    change : callable
        Applied once to each frame that `FrameReader.frames` yields, from several threads.
    ahead : int
        Processed frames that each reader may hold until earlier ones have been yielded.
    gate : Gate
        Where readers wait before each frame.

    Yields
    ------
    Tensor
        One per sample time, in order, up to the last frame; the same tensor while the same frame
        is on screen.
    """
    readers: list[FrameReader] = []
    if _is_worth_it(stream, times):
        # The last reader finds the key frames first, since it does not start at the beginning.
        readers = [
            FrameReader(path, stream, Damage(), threads=1) for _ in range(_max_readers(stream))
        ]
        shares = _shares(readers[-1], times, len(readers))
        if not shares:
            readers[-1].close()
        readers = readers[len(readers) - len(shares) :]
    if not readers:
        yield from _one_reader(FrameReader(path, stream, damage), times, change, gate)
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
    # The file has ended, or decoding from key frames failed. One reader continues sequentially,
    # starting with the last frame that was yielded.
    last = FrameReader(path, stream, Damage())
    last.largest_gap = max(reader.largest_gap for reader in readers)
    first = max(0, done - 1)
    with closing(_one_reader(last, times[first:], change, gate)) as rest:
        try:
            for number, frame in enumerate(rest, first):
                if number >= done:
                    yield frame
        finally:
            damage.add(last.damage)


def _changed(frames: Iterator[tuple[int, Tensor]], change: Change) -> Generator[Tensor, None, None]:
    source = changed = None
    for _, image in frames:
        if image is not source:  # the same tensor means the same frame
            source, changed = image, change(image)
        assert changed is not None
        yield changed


def _one_reader(
    reader: FrameReader, times: Sequence[float], change: Change, gate: Gate
) -> Generator[Tensor, None, None]:
    """Decode with one reader in a thread while the previous frame is processed."""
    frames = Prefetch(reader.frames(times), 2, "omnidrop-decoder", gate)
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
    """Run the readers in threads and yield their frames in order, until one has no more."""
    threads: list[Prefetch[Tensor]] = []
    try:
        for reader, share in zip(readers, shares, strict=True):
            frames = _until_sequential(reader, share.spans, change)
            threads.append(Prefetch(frames, ahead, "omnidrop-decoder", gate))
        turns = sorted(
            (place, len(span), number)
            for number, share in enumerate(shares)
            for place, span in zip(share.places, share.spans, strict=True)
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


def _until_sequential(
    reader: FrameReader, spans: Sequence[Sequence[float]], change: Change
) -> Generator[Tensor, None, None]:
    """Yield processed frames until the reader finds that it cannot start at key frames."""
    with closing(reader.frames(*spans)) as frames:
        for frame in _changed(frames, change):
            if reader.sequential_only:
                return
            yield frame


# Splitting the work


def _max_readers(stream: VideoStream) -> int:
    if is_large(stream.width, stream.height):
        return 1
    most = _MAX_READERS if stream.width * stream.height <= _LARGE else _MAX_READERS_LARGE
    return min(most, os.cpu_count() or 1)


def _is_worth_it(stream: VideoStream, times: Sequence[float]) -> bool:
    if stream.clock.sequential:
        return False
    frames = (times[-1] - times[0]) * (stream.average_fps or 25.0) if times else 0.0
    return _max_readers(stream) > 1 and frames * stream.width * stream.height >= _MIN_PIXELS


def _shares(scout: FrameReader, times: Sequence[float], most: int) -> list[Share]:
    """Split the sample times among readers; empty if one reader does as well."""
    length = times[-1] - times[0]
    seconds = min(max(length / most / _SPANS_PER_READER, _MIN_SECONDS), _MAX_SECONDS)
    spans = _spans(scout, times, seconds)
    for readers in range(min(most, len(spans)), 1, -1):
        loads, shares = [0.0] * readers, [Share([], []) for _ in range(readers)]
        for place, span in enumerate(spans):
            number = loads.index(min(loads))
            loads[number] += span[-1] - span[0] + length / len(times)
            shares[number].places.append(place)
            shares[number].spans.append(span)
        if max(loads) <= _MAX_IMBALANCE * sum(loads) / readers:
            return shares
    return []


def _spans(scout: FrameReader, times: Sequence[float], seconds: float) -> list[Sequence[float]]:
    """Split the sample times at key frames, into spans of about so many seconds or more."""
    spans: list[Sequence[float]] = []
    first = look = 0
    while True:
        look = max(look + _MIN_SAMPLES, bisect_left(times, times[look] + seconds))
        key = scout.key_frame_near(times[look]) if look < len(times) else None
        if key is None:
            return [*spans, times[first:]]
        cut = bisect_left(times, key - CLOCK_SLACK)
        if first < cut < len(times):
            spans.append(times[first:cut])
            first = look = cut
