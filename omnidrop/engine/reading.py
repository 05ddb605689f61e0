"""A clip's frames and sound, read in threads of their own while the towers work.

Grids (pairs of frames) that were seen before are known by their pixels and not handed out again.
That takes an exact repeat, byte for byte after resizing. Pictures held still are such in files of
variable rate, lossless ones and those of intra codecs. x264 at 30 frames a second repaints a still
picture at every key frame and refines it over the next second; only what follows repeats, and
where B-frames are filtered differently than P-frames, in turns of two or three.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from omnidrop.clip.ahead import Ahead
from omnidrop.clip.features import VideoSpec, patches
from omnidrop.engine.meter import Meter

if TYPE_CHECKING:  # ready features need no media library
    from omnidrop.clip.decode import Clip

#: Chunks of patches made ahead of the vision tower.
AHEAD = 2
#: The same for a tower on a GPU, which takes several at once.
AHEAD_GPU = 8
#: Patches that such a tower takes at once, at least, where so many are there already.
TOGETHER_GPU = 8192
#: Grids that a new one is held against where pictures need only be nearly the same.
LATELY = 3
#: Bytes of frames read before the vision tower gets to work, where both need the same processors.
ROUND = 64 << 20
#: Bytes of frames in a batch of such a round; their patches take four times as much.
BATCH = 8 << 20


class Grids(NamedTuple):
    """What a chunk of frames adds.

    Attributes
    ----------
    rows : Tensor or None, (t·h·w, 3·2·14·14) float32
        Patches of the grids not seen before; None if there are none.
    shape : tuple of int
        (t, h, w) of ``rows``, in patches; t is 0 where there are none.
    places : list of int
        Per grid of the chunk, which of all grids not seen before it equals, counted from 0.
    frames : int
        Frames in the chunk.
    """

    rows: torch.Tensor | None
    shape: tuple[int, int, int]
    places: list[int]
    frames: int

    @classmethod
    def together(cls, chunks: Sequence[Grids]) -> Grids:
        """Return what chunks of one clip add that follow each other."""
        rows = [chunk.rows for chunk in chunks if chunk.rows is not None]
        _, height, width = chunks[0].shape
        return cls(
            torch.cat(rows) if rows else None,
            (sum(chunk.shape[0] for chunk in chunks), height, width),
            [place for chunk in chunks for place in chunk.places],
            sum(chunk.frames for chunk in chunks),
        )


class Seen:
    """The grids of a clip met so far, known by the digests of their pixels.

    Parameters
    ----------
    depth : int
        Frames in a grid.
    still : int
        Grey levels by which every pixel of a grid may differ from one of the grids met last, and
        still count as that one. 0 for exact repeats alone.
    """

    def __init__(self, depth: int, still: int = 0) -> None:
        self._depth = depth
        self._still = still
        self._place: dict[bytes, int] = {}
        self._number = 0
        self._last: deque[tuple[int, np.ndarray]] = deque(maxlen=LATELY)

    def sort(self, frames: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        """Find the grids that are new.

        Parameters
        ----------
        frames : Tensor, uint8, (T, 3, H, W)
            If T is no multiple of the grid's depth, the last frame is repeated.

        Returns
        -------
        fresh : Tensor, uint8, (n · depth, 3, H, W)
            Frames of the new grids.
        places : list of int
            Per grid, the number of the grid it equals, in the order they were first met.
        """
        if odd := -len(frames) % self._depth:
            frames = torch.cat([frames, frames[-1:].expand(odd, -1, -1, -1)])
        fresh, places = [], []
        for grid in frames.split(self._depth):
            pixels = grid.contiguous().numpy()
            digest = hashlib.blake2b(pixels, digest_size=16).digest()
            place = self._place.get(digest)
            if place is None:
                place = self._alike(pixels)
            if place is None:
                place = self._number
                self._number += 1
                fresh.append(grid)
                if self._still:
                    self._last.append((place, pixels))
            self._place[digest] = place
            places.append(place)
        return torch.cat(fresh) if fresh else frames[:0], places

    def _alike(self, pixels: np.ndarray) -> int | None:
        """Return the latest grid that differs so little; differences never add up from one on."""
        for place, known in reversed(self._last):
            if all(
                # A few rows tell at once where something moves.
                (np.maximum(a, b) - np.minimum(a, b)).max() <= self._still
                for a, b in ((pixels[..., ::16, :], known[..., ::16, :]), (pixels, known))
            ):
                return place
        return None


def grids_beside(clip: Clip, meter: Meter, ahead: int = AHEAD) -> Ahead[Grids]:
    """Decode frames and make their patches in a thread, `ahead` chunks before the taker."""
    return Ahead(_grids(clip, meter, overlapped=True), ahead, "omnidrop-frames")


def all_ready(first: Grids, rest: Ahead[Grids], patches: int) -> Grids:
    """Return a chunk together with those that are there already, up to about so many patches.

    A tower that keeps up with the reader takes chunk by chunk, and one that does not takes several
    at once, for which it needs hardly longer.
    """
    taken, count = [first], _patches(first)
    while count < patches and rest.ready():
        taken.append(next(rest))
        count += _patches(taken[-1])
    return Grids.together(taken) if len(taken) > 1 else first


def _patches(grids: Grids) -> int:
    return 0 if grids.rows is None else len(grids.rows)


def grids_in_rounds(clip: Clip, meter: Meter) -> Generator[Grids, None, None]:
    """Decode many frames with all processors, then let the taker have them, and so on.

    While grids are taken nothing of the clip is read, nor its sound.
    """
    return _grids(clip, meter, overlapped=False)


def _grids(clip: Clip, meter: Meter, *, overlapped: bool) -> Generator[Grids, None, None]:
    seen = Seen(clip.video_spec.temporal_patch_size, clip.options.still)
    with closing(_frames(clip, meter, overlapped)) as rounds:
        for chunks in rounds:
            with nullcontext() if overlapped else clip.gate.closed():
                for frames in chunks:
                    with meter.stage("patches", overlapped=overlapped):
                        grids = _cut(frames, seen, clip.video_spec)
                    yield grids
    meter.add("resize", clip.resizing.seconds, within="frames", overlapped=overlapped)


def _frames(
    clip: Clip, meter: Meter, overlapped: bool
) -> Generator[list[torch.Tensor], None, None]:
    """Yield the frames of one chunk; or of as many as make a round, in batches for the tower."""
    chunks: list[torch.Tensor] = []
    with closing(clip.frame_chunks()) as source:
        while True:
            with meter.stage("frames", overlapped=overlapped):
                chunk = next(source, None)
            if chunk is not None:
                chunks.append(chunk.frames)
            if chunks and (overlapped or chunk is None or sum(c.nbytes for c in chunks) >= ROUND):
                yield chunks if overlapped else _batches(chunks)
                chunks = []
            if chunk is None:
                return


def _batches(chunks: list[torch.Tensor]) -> list[torch.Tensor]:
    """Join chunks, so that large matrices go through the tower; all but the last are even."""
    most = max(1, BATCH // max(1, chunks[0].nbytes))
    return [torch.cat(chunks[first : first + most]) for first in range(0, len(chunks), most)]


def _cut(frames: torch.Tensor, seen: Seen, spec: VideoSpec) -> Grids:
    fresh, places = seen.sort(frames)
    if len(fresh):
        rows, shape = patches(fresh, spec)
        return Grids(rows, shape, places, len(frames))
    height, width = (side // spec.patch_size for side in fresh.shape[2:])
    return Grids(None, (0, height, width), places, len(frames))


class SoundAhead:
    """Decodes the sound and makes its log-mel in a thread."""

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
            with meter.stage("sound", overlapped=True):
                self._mel = clip.log_mel(self._stop)
            meter.add("sound", -clip.waiting.seconds, overlapped=True)
            meter.add("log-mel", clip.transforming.seconds, within="sound", overlapped=True)
        except BaseException as error:  # kept for the reader, who raises it
            self._error = error

    def result(self) -> torch.Tensor | None:
        """Wait for the log-mel: float32 (128, F), or None if there is nothing to hear."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._mel

    def close(self) -> None:
        """Stop reading and wait for the thread."""
        self._stop.set()
        self._thread.join(timeout=10.0)
