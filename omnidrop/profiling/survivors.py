"""Which video and audio tokens survived to a layer, placed on the clip's grids.

Plain data; `omnidrop.profiling.replay` collects it and `omnidrop.profiling.contact_sheet` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from omnidrop.report.trace import Moment
from omnidrop.tokens import TokenMap


@dataclass(frozen=True, eq=False)
class Survivors:
    """The tokens that entered one layer, by their place in the clip.

    Attributes
    ----------
    layer : int
    video : ndarray, (t, h, w) bool, or None
        True where a token survived; None without video.
    audio : ndarray, (n,) bool, or None
        The same per audio token; None without audio.
    chunk_of_grid, chunk_of_audio : ndarray of int
        Temporal chunk of each of the t grids and of each audio token.
    """

    layer: int
    video: np.ndarray | None
    audio: np.ndarray | None
    chunk_of_grid: np.ndarray
    chunk_of_audio: np.ndarray


@dataclass(frozen=True, eq=False)
class ReplayedChunk:
    """One chunk of a clip, and what of it survived.

    Attributes
    ----------
    start, end : float
        Seconds in the file.
    frame : ndarray, (H, W, 3) uint8, or None
        Frame of the grid that kept most.
    patches : ndarray, (h, w) bool, or None
        Which tokens of that frame survived.
    video_kept, video_total : int
        Tokens of the whole chunk.
    mel : ndarray, (bins, F) float32, or None
    audio : ndarray, (n,) bool, or None
        Which audio tokens survived.
    lit : ndarray, (F,) bool, or None
        The same per log-mel frame: whether the token that covers it survived.
    relevance : float or None
        As in `ChunkTrace`.
    """

    start: float
    end: float
    frame: np.ndarray | None
    patches: np.ndarray | None
    video_kept: int
    video_total: int
    mel: np.ndarray | None
    audio: np.ndarray | None
    lit: np.ndarray | None
    relevance: float | None = None


@dataclass(frozen=True, eq=False)
class Replay:
    """A clip read again, with what a run kept of it at a layer.

    Attributes
    ----------
    label : str
        Of the run.
    layer, layers : int
    chunks : tuple of ReplayedChunk
    left_out : int
        Chunks left out because there were too many.
    question, answer : str
    moments : tuple of Moment
        Where the answer came from.
    """

    label: str
    layer: int
    layers: int
    chunks: tuple[ReplayedChunk, ...]
    left_out: int = 0
    question: str = ""
    answer: str = ""
    moments: tuple[Moment, ...] = ()

    def moment(self, chunk: ReplayedChunk) -> float | None:
        """Return the share of the moment that a chunk lies in; None if it lies in none.

        A chunk that a moment only touches, by less than a tenth of either, lies outside.
        """
        for moment in self.moments:
            shared = min(moment.end, chunk.end) - max(moment.start, chunk.start)
            shorter = min(moment.end - moment.start, chunk.end - chunk.start)
            if shared > 0 and shared >= 0.1 * shorter:
                return moment.share
        return None


def first_halved_layer(kept_per_layer: Sequence[int]) -> int:
    """Return the first layer with at most half of the first layer's tokens; L // 2 if none has."""
    half = kept_per_layer[0] / 2 if kept_per_layer else 0
    for layer, kept in enumerate(kept_per_layer):
        if kept <= half and layer:
            return layer
    return len(kept_per_layer) // 2


def survivors_at(tokens: TokenMap, indices: Sequence[int], layer: int) -> Survivors:
    """Place the survivors of a layer on the clip's grids.

    Parameters
    ----------
    tokens : TokenMap
        Of the whole prompt.
    indices : sequence of int
        Prompt indices of the AV tokens that entered the layer, as `Trace.survivors` has them.
    layer : int
    """
    alive = torch.zeros(len(tokens), dtype=torch.bool)
    alive[torch.tensor(list(indices), dtype=torch.int64)] = True
    video = audio = None
    chunk_of_grid = chunk_of_audio = np.empty(0, np.int64)
    if bool(tokens.video.any()):
        cells = tokens.grid[tokens.video].numpy()
        video = np.zeros(cells.max(axis=0) + 1, dtype=bool)
        video[tuple(cells.T)] = alive[tokens.video].numpy()
        chunk_of_grid = np.zeros(len(video), dtype=np.int64)
        chunk_of_grid[cells[:, 0]] = tokens.chunk[tokens.video].numpy()
    if bool(tokens.audio.any()):
        place = tokens.grid[tokens.audio, 0].numpy()
        audio = np.zeros(int(place.max()) + 1, dtype=bool)
        audio[place] = alive[tokens.audio].numpy()
        chunk_of_audio = np.zeros(len(audio), dtype=np.int64)
        chunk_of_audio[place] = tokens.chunk[tokens.audio].numpy()
    return Survivors(layer, video, audio, chunk_of_grid, chunk_of_audio)
