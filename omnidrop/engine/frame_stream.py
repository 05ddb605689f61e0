"""Prefetch a clip's frames and audio in threads, and filter out repeated grids.

A grid (one temporal patch of frames) with the same pixels as an earlier one is not encoded again.
By default the pixels must be equal byte for byte after resizing. Still scenes repeat exactly in
files of variable frame rate, in lossless files and in those of intra codecs. x264 at 30 frames per
second re-encodes a still scene at every key frame and refines it over the next second; only the
frames after that repeat, and if B-frames are filtered differently from P-frames, in cycles of two
or three.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from omnidrop.clip.patches import patches
from omnidrop.clip.prefetch import Prefetch
from omnidrop.clip.specs import VideoSpec
from omnidrop.engine.timing import Meter
from omnidrop.stages import StageName

if TYPE_CHECKING:  # precomputed features need no media library
    from omnidrop.clip.clip import Clip

#: Chunks of patches prefetched for the vision encoder.
PREFETCHED = 2
#: The same for an encoder on a GPU, which encodes several chunks in one batch.
PREFETCHED_GPU = 8
#: Patches in a batch of an encoder on a GPU, at least, except at the end of a clip.
BATCH_PATCHES_GPU = 8192
#: Number of the latest distinct grids that a new one is compared with, if near repeats count.
COMPARED = 3
#: Bytes of frames decoded before the vision encoder runs, if both compete for the CPU.
ROUND = 64 << 20
#: Bytes of frames in a batch of such a round; their patches take four times as much.
BATCH = 8 << 20


class Grids(NamedTuple):
    """The new grids of a chunk of frames.

    Attributes
    ----------
    rows : Tensor or None, (t·h·w, channels·temporal_patch·patch²) float32
        Patches of the new grids; None if there are none.
    shape : tuple of int
        (t, h, w) of ``rows``, in patches; t is 0 if there are none.
    places : list of int
        Per grid of the chunk, the index of the distinct grid it equals, counted from 0.
    frames : int
        Frames in the chunk.
    """

    rows: torch.Tensor | None
    shape: tuple[int, int, int]
    places: list[int]
    frames: int

    @classmethod
    def together(cls, chunks: Sequence[Grids]) -> Grids:
        """Join consecutive chunks of one clip."""
        rows = [chunk.rows for chunk in chunks if chunk.rows is not None]
        _, height, width = chunks[0].shape
        return cls(
            torch.cat(rows) if rows else None,
            (sum(chunk.shape[0] for chunk in chunks), height, width),
            [place for chunk in chunks for place in chunk.places],
            sum(chunk.frames for chunk in chunks),
        )


class RepeatFilter:
    """Finds grids whose pixels repeat an earlier grid, by their digests.

    Parameters
    ----------
    depth : int
        Frames in a grid.
    still : int
        Grey levels by which every pixel of a grid may differ from one of the latest grids and still
        count as a repeat of it. 0 for exact repeats only.
    """

    def __init__(self, depth: int, still: int = 0) -> None:
        self._depth = depth
        self._still = still
        self._place: dict[bytes, int] = {}
        self._number = 0
        self._latest: deque[tuple[int, np.ndarray]] = deque(maxlen=COMPARED)

    def sort(self, frames: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        """Separate new grids from repeats.

        Parameters
        ----------
        frames : Tensor, uint8, (T, 3, H, W)
            If T is no multiple of the grid's depth, the last frame is repeated.

        Returns
        -------
        fresh : Tensor, uint8, (n · depth, 3, H, W)
            Frames of the new grids.
        places : list of int
            Per grid, the index of the distinct grid it equals, in order of first appearance.
        """
        if odd := -len(frames) % self._depth:
            frames = torch.cat([frames, frames[-1:].expand(odd, -1, -1, -1)])
        fresh, places = [], []
        for grid in frames.split(self._depth):
            pixels = grid.contiguous().numpy()
            digest = hashlib.blake2b(pixels, digest_size=16).digest()
            place = self._place.get(digest)
            if place is None:
                place = self._near_repeat(pixels)
            if place is None:
                place = self._number
                self._number += 1
                fresh.append(grid)
                if self._still:
                    self._latest.append((place, pixels))
            self._place[digest] = place
            places.append(place)
        return torch.cat(fresh) if fresh else frames[:0], places

    def _near_repeat(self, pixels: np.ndarray) -> int | None:
        """Return the latest near-equal grid; compared with originals, so drift cannot add up."""
        for place, known in reversed(self._latest):
            if all(
                # A few rows are enough to detect most motion.
                (np.maximum(a, b) - np.minimum(a, b)).max() <= self._still
                for a, b in ((pixels[..., ::16, :], known[..., ::16, :]), (pixels, known))
            ):
                return place
        return None


def prefetched_grids(clip: Clip, meter: Meter, count: int = PREFETCHED) -> Prefetch[Grids]:
    """Decode frames and make their patches in a thread, `count` chunks ahead of the consumer."""
    return Prefetch(_grids(clip, meter, overlapped=True), count, "omnidrop-frames")


def joined(grids: Iterator[Grids], patches: int) -> Iterator[Grids]:
    """Join consecutive chunks until they hold at least `patches` patches.

    A GPU encodes several chunks in hardly more time than one. Which chunks are joined depends on
    the clip alone, never on which happen to be ready, so that rounding is the same in every run.
    """
    taken: list[Grids] = []
    count = 0
    for item in grids:
        taken.append(item)
        count += _patch_count(item)
        if count >= patches:
            yield Grids.together(taken) if len(taken) > 1 else item
            taken, count = [], 0
    if taken:
        yield Grids.together(taken) if len(taken) > 1 else taken[0]


def _patch_count(grids: Grids) -> int:
    return 0 if grids.rows is None else len(grids.rows)


def grids_in_rounds(clip: Clip, meter: Meter) -> Generator[Grids, None, None]:
    """Decode many frames on all CPU cores, then wait while the consumer computes, in turns.

    While the consumer computes, neither frames nor audio of the clip are decoded.
    """
    return _grids(clip, meter, overlapped=False)


def _grids(clip: Clip, meter: Meter, *, overlapped: bool) -> Generator[Grids, None, None]:
    spec = clip.spec.video
    repeats = RepeatFilter(spec.temporal_patch_size, clip.options.still)
    with closing(_frames(clip, meter, overlapped)) as rounds:
        for chunks in rounds:
            with nullcontext() if overlapped else clip.gate.closed():
                for frames in chunks:
                    with meter.stage(StageName.PATCHES, overlapped=overlapped):
                        grids = _new_grids(frames, repeats, spec)
                    yield grids
    add_video_times(clip, meter, overlapped=overlapped)


def _frames(
    clip: Clip, meter: Meter, overlapped: bool
) -> Generator[list[torch.Tensor], None, None]:
    """Yield the frames of one chunk, or those of a round, in batches for the vision tower."""
    chunks: list[torch.Tensor] = []
    with closing(clip.frame_chunks()) as source:
        while True:
            with meter.stage(StageName.FRAMES, overlapped=overlapped):
                chunk = next(source, None)
            if chunk is not None:
                chunks.append(chunk.frames)
            if chunks and (overlapped or chunk is None or sum(c.nbytes for c in chunks) >= ROUND):
                yield chunks if overlapped else _batches(chunks)
                chunks = []
            if chunk is None:
                return


def _batches(chunks: list[torch.Tensor]) -> list[torch.Tensor]:
    """Join chunks into batches of equal size, except the last, so that matrices are large."""
    most = max(1, BATCH // max(1, chunks[0].nbytes))
    return [torch.cat(chunks[first : first + most]) for first in range(0, len(chunks), most)]


def _new_grids(frames: torch.Tensor, repeats: RepeatFilter, spec: VideoSpec) -> Grids:
    fresh, places = repeats.sort(frames)
    if len(fresh):
        rows, shape = patches(fresh, spec)
        return Grids(rows, shape, places, len(frames))
    height, width = (side // spec.patch_size for side in fresh.shape[2:])
    return Grids(None, (0, height, width), places, len(frames))


def add_video_times(clip: Clip, meter: Meter, *, overlapped: bool = False) -> None:
    """Add the time that the clip spent resizing frames; it is a part of "frames"."""
    meter.add(
        StageName.RESIZE, clip.resizing.seconds, within=StageName.FRAMES, overlapped=overlapped
    )


def add_audio_times(clip: Clip, meter: Meter, *, overlapped: bool = False) -> None:
    """Add the time that the clip spent computing log-mel; it is a part of "sound".

    Time spent waiting for a turn is subtracted from "sound".
    """
    meter.add(StageName.SOUND, -clip.waiting.seconds, overlapped=overlapped)
    meter.add(
        StageName.LOG_MEL,
        clip.transforming.seconds,
        within=StageName.SOUND,
        overlapped=overlapped,
    )


class AudioPrefetch:
    """Decodes the audio and computes its log-mel in a thread."""

    def __init__(self, clip: Clip, meter: Meter) -> None:
        self._mel: torch.Tensor | None = None
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(clip, meter), name="omnidrop-sound", daemon=True
        )
        self._thread.start()

    def _work(self, clip: Clip, meter: Meter) -> None:
        try:
            with meter.stage(StageName.SOUND, overlapped=True):
                self._mel = clip.log_mel(self._stop)
            add_audio_times(clip, meter, overlapped=True)
        except BaseException as error:  # raised by `result`
            self._error = error

    def result(self) -> torch.Tensor | None:
        """Wait for the log-mel: float32 (n_mels, F), or None without audio."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._mel

    def close(self) -> None:
        """Stop reading and wait for the thread."""
        self._stop.set()
        self._thread.join(timeout=10.0)
