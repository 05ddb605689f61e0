"""What the tokens of a prompt are: the values that travel between the rooms, and nothing else.

A `Prompt` holds ids, positions and a `TokenMap`; every token index in every report refers to that
map. A model family makes them (`omnidrop.models.family.Template`), methods and reports read them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

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
    """What each token of a sequence is, and where it stands in the clip.

    Attributes
    ----------
    kind : Tensor, (N,) int8
        A `Kind` per token.
    chunk : Tensor, (N,) int32
        Index of the temporal chunk of the clip; -1 for text and markers.
    grid : Tensor, (N, 3) int32
        (t, h, w) cell of a video token in LLM cells, (t, -1, -1) for an audio token (t counts
        audio tokens), -1 for the others.
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
        """Mask of the user's own words, (N,) bool."""
        return self.kind == Kind.QUESTION

    @property
    def chunks(self) -> int:
        """Number of chunks, counted by the highest chunk index."""
        return int(self.chunk.max()) + 1 if len(self) else 0

    def select(self, index: torch.Tensor) -> TokenMap:
        """Return the map of the tokens at `index` ((n,) int64 or (N,) bool), in that order."""
        return TokenMap(self.kind[index], self.chunk[index], self.grid[index])


@dataclass(frozen=True)
class Media:
    """What of a clip is in the prompt.

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
            raise ValueError(f"a grid of {self.grid} with {self.second_per_grid} s per step")

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
    """A whole prompt, ready for the engine.

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
        """Return ids, and the (start, end) characters that each stands for.

        A special token spelled out in `text` is text like any other, so that nobody's words can
        open a turn or add a placeholder.
        """
        ...


class Asked(NamedTuple):
    """Text that ends with the user's own words, and the character they start at."""

    text: str
    start: int


#: A part of a chat: the id of a special token, text, or text that ends with the user's words.
Piece = int | str | Asked
