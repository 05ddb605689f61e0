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
from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import torch

from omnidrop.clip.ahead import Ahead
from omnidrop.clip.features import patches
from omnidrop.engine.meter import Meter

if TYPE_CHECKING:  # ready features need no media library
    from omnidrop.clip.decode import Clip

#: Chunks of patches made ahead of the vision tower.
AHEAD = 2


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


class Seen:
    """The grids of a clip met so far, known by the digests of their pixels.

    Parameters
    ----------
    depth : int
        Frames in a grid.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._place: dict[bytes, int] = {}

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
            digest = hashlib.blake2b(grid.contiguous().numpy(), digest_size=16).digest()
            place = self._place.get(digest)
            if place is None:
                place = self._place[digest] = len(self._place)
                fresh.append(grid)
            places.append(place)
        return torch.cat(fresh) if fresh else frames[:0], places


def frames_ahead(clip: Clip, meter: Meter) -> Ahead[Grids]:
    """Decode frames and make their patches in a thread, a few chunks ahead of the taker."""
    return Ahead(_grids(clip, meter), AHEAD, "omnidrop-frames")


def _grids(clip: Clip, meter: Meter) -> Generator[Grids, None, None]:
    spec = clip.video_spec
    seen = Seen(spec.temporal_patch_size)
    with closing(clip.frame_chunks()) as chunks:
        while True:
            with meter.stage("frames", overlapped=True):
                chunk = next(chunks, None)
            if chunk is None:
                break
            with meter.stage("patches", overlapped=True):
                fresh, places = seen.sort(chunk.frames)
                height, width = (side // spec.patch_size for side in fresh.shape[2:])
                rows, shape = None, (0, height, width)
                if len(fresh):
                    rows, shape = patches(fresh, spec)
            yield Grids(rows, shape, places, int(chunk.frames.shape[0]))
    meter.add("resize", clip.resizing.seconds, within="frames", overlapped=True)


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
