"""Chat template → token ids, M-RoPE positions, and a TokenMap that says what each token is.

Every index in every report refers to the TokenMap made here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch


class Kind(IntEnum):
    """What a token is. Only VIDEO and AUDIO are ever dropped."""

    TEXT = 0
    QUESTION = 1
    VIDEO = 2
    AUDIO = 3
    MARKER = 4


@dataclass(frozen=True)
class TokenMap:
    """What each token of a sequence is, where it stands in time, and where in the picture.

    Attributes
    ----------
    kind : Tensor, (N,) int8
        A `Kind` per token.
    chunk : Tensor, (N,) int32
        Index of the temporal chunk (2 s of clip); -1 for text and markers.
    time : Tensor, (N,) float32
        Seconds from the start of the asked span; NaN for text and markers.
    grid : Tensor, (N, 3) int32
        (t, h, w) cell of a video token in LLM cells, (t, -1, -1) for an audio token (t counts
        audio tokens), -1 for the others.
    """

    kind: torch.Tensor
    chunk: torch.Tensor
    time: torch.Tensor
    grid: torch.Tensor

    def __len__(self) -> int:
        return int(self.kind.shape[0])

    @property
    def video(self) -> torch.Tensor:
        """Mask of video tokens, (N,) bool."""
        return self.kind == Kind.VIDEO

    @property
    def audio(self) -> torch.Tensor:
        """Mask of audio tokens, (N,) bool."""
        return self.kind == Kind.AUDIO

    @property
    def av(self) -> torch.Tensor:
        """Mask of the tokens that may be dropped, (N,) bool."""
        return self.video | self.audio

    @property
    def question(self) -> torch.Tensor:
        """Mask of the user's own words, (N,) bool."""
        return self.kind == Kind.QUESTION

    @property
    def chunks(self) -> int:
        """Number of chunks, counted by the highest chunk index."""
        return int(self.chunk.max()) + 1 if len(self) else 0

    def select(self, index: torch.Tensor) -> TokenMap:
        """Return the map of the tokens at `index` ((n,) int64 or (N,) bool), in that order."""
        return TokenMap(self.kind[index], self.chunk[index], self.time[index], self.grid[index])


@dataclass(frozen=True)
class Prompt:
    """A whole prompt, ready for the engine.

    Attributes
    ----------
    ids : Tensor, (N,) int64
        Token ids, with one placeholder id per audio and video token.
    positions : Tensor, (3, N) int64
        M-RoPE positions (temporal, height, width).
    tokens : TokenMap
        What each token is.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    tokens: TokenMap

    def __len__(self) -> int:
        return int(self.ids.shape[0])

    @property
    def next_position(self) -> int:
        """Position of the first generated token: the highest position + 1."""
        return int(self.positions.max()) + 1
