"""Types of a prompt's tokens, shared by all packages.

A `Prompt` holds ids, positions and a `TokenMap`; every token index in every report refers to that
map. The template of a model family creates them (`omnidrop.models.family.Template`); methods and
reports read them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

import torch


class Kind(IntEnum):
    """Kind of a token. Only VIDEO and AUDIO tokens are ever dropped."""

    TEXT = 0
    QUESTION = 1
    VIDEO = 2
    AUDIO = 3
    MARKER = 4


@dataclass(frozen=True)
class TokenMap:
    """Kind of each token of a sequence, and its place in the clip.

    Attributes
    ----------
    kind : Tensor, (N,) int8
        A `Kind` per token.
    chunk : Tensor, (N,) int32
        Index of the temporal chunk of the clip; -1 for text and markers.
    grid : Tensor, (N, 3) int32
        (t, h, w) of a video token in the grid of merged patches, (t, -1, -1) of an audio token (t
        counts audio tokens), -1 for the others.
    """

    kind: torch.Tensor
    chunk: torch.Tensor
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
        """Mask of the user's words, (N,) bool."""
        return self.kind == Kind.QUESTION

    @property
    def chunks(self) -> int:
        """Number of chunks: the highest chunk index plus one."""
        return int(self.chunk.max()) + 1 if len(self) else 0

    def select(self, index: torch.Tensor) -> TokenMap:
        """Return the map of the tokens at `index` ((n,) int64 or (N,) bool), in that order."""
        return TokenMap(self.kind[index], self.chunk[index], self.grid[index])


@dataclass(frozen=True)
class Media:
    """Sizes of a clip's video and audio in the prompt.

    Attributes
    ----------
    grid : tuple of int or None
        (t, h, w) of the patch grid before merging; None without video.
    second_per_grid : float or None
        Seconds that one grid step covers (frames per step / true fps); needed with video.
    audio_tokens : int
        Tokens of the audio encoder; 0 without audio.
    """

    grid: tuple[int, int, int] | None = None
    second_per_grid: float | None = None
    audio_tokens: int = 0

    def __post_init__(self) -> None:
        if self.grid is not None and not (self.second_per_grid and self.second_per_grid > 0):
            raise ValueError(f"grid {self.grid} needs second_per_grid, not {self.second_per_grid}")

    def __bool__(self) -> bool:
        """Whether there is video or audio."""
        return self.grid is not None or self.audio_tokens > 0


@dataclass(frozen=True)
class ClipTokens:
    """The tokens of a clip in a prompt, markers included.

    Attributes
    ----------
    ids : Tensor, (n,) int64
        Ids of markers, and one placeholder id per audio and video token.
    tokens : TokenMap
        What each of the n tokens is.
    positions : Tensor, (3, n) int64 or float32
        Rotary positions (temporal, height, width), counted as in the whole prompt.
    end : int or float
        Position of the first token after the clip.
    """

    ids: torch.Tensor
    tokens: TokenMap
    positions: torch.Tensor
    end: int | float


@dataclass(frozen=True)
class Prompt:
    """A complete prompt, ready for the engine.

    Attributes
    ----------
    ids : Tensor, (N,) int64
        Token ids, with one placeholder id per audio and video token.
    positions : Tensor, (3, N) int64 or float32
        Rotary positions (temporal, height, width).
    tokens : TokenMap
        What each token is.
    next_position : int or float
        Position of the first generated token.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    tokens: TokenMap
    next_position: int | float

    def __len__(self) -> int:
        return int(self.ids.shape[0])


class TextEncoder(Protocol):
    """Turns text into ids."""

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return ids, and the (start, end) characters of each.

        A special token written in `text` is plain text, so that a user's words cannot open a turn
        or add a placeholder.
        """
        ...


class Asked(NamedTuple):
    """Text that ends with the user's words, and the index of their first character."""

    text: str
    start: int


#: A part of a chat: the id of a special token, text, or text that ends with the user's words.
Piece = int | str | Asked
