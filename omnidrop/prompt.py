"""Chat template → token ids, M-RoPE positions, and a TokenMap that says what each token is.

Every index in every report refers to the TokenMap made here. Ids and positions equal those of the
reference (processor and `get_rope_index` of transformers' Qwen2.5-Omni).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

import numpy as np
import torch

from omnidrop.errors import UsageError
from omnidrop.positions import (
    Layout,
    Media,
    grid_positions,
    placeholder_order,
    positions,
    video_cells,
)

__all__ = [
    "Asked",
    "Kind",
    "Layout",
    "Media",
    "Prompt",
    "TextEncoder",
    "TokenMap",
    "build_prompt",
    "long_position_notice",
    "positions",
    "render_chat",
]


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


Piece = int | str | Asked


def render_chat(
    layout: Layout, question: str, media: Media, system: str | None = None
) -> tuple[list[Piece], list[Piece]]:
    """Write the chat around the clip.

    Returns
    -------
    before, after : list of int, str or Asked
        Special ids and the text between them, before and after the clip.

    Notes
    -----
    The chat template of Qwen/Qwen2.5-Omni: system turn, user turn with the clip and then the
    question, and the opening of the answer.
    """
    instruction = layout.system if system is None else system
    start, end = layout.im_start, layout.im_end
    before: list[Piece] = [start, f"system\n{instruction}", end, "\n", start]
    answer: list[Piece] = [end, "\n", start, "assistant\n"]
    if media:
        return [*before, "user\n"], [Asked(question, 0), *answer]
    return [*before, Asked(f"user\n{question}", len("user\n"))], answer


def _clip_ids(layout: Layout, media: Media, order: np.ndarray, video: int) -> list[int]:
    """Markers and placeholders of a clip."""
    ids = np.where(order < video, layout.video, layout.audio).tolist()
    if media.audio_tokens:
        ids = [layout.audio_bos, *ids, layout.audio_eos]
    if media.grid is not None:
        ids = [layout.vision_bos, *ids, layout.vision_eos]
    return ids


def _encode(encoder: TextEncoder, pieces: list[Piece]) -> tuple[list[int], list[int]]:
    """Ids and kinds of a run of special ids and text."""
    ids: list[int] = []
    kinds: list[int] = []
    for piece in pieces:
        if isinstance(piece, int):
            ids.append(piece)
            kinds.append(Kind.TEXT)
            continue
        text, asked = piece if isinstance(piece, Asked) else (piece, len(piece) + 1)
        words, spans = encoder.encode(text)
        ids += words
        kinds += [Kind.QUESTION if a >= asked or b > asked else Kind.TEXT for a, b in spans]
    return ids, kinds


def _legible(text: str, what: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            f"The {what} is not valid UTF-8 text.", hint="Type it anew, or save it as UTF-8."
        ) from error


def build_prompt(
    encoder: TextEncoder,
    layout: Layout,
    question: str,
    media: Media,
    *,
    system: str | None = None,
) -> Prompt:
    """Make the whole prompt of one question about one clip.

    Parameters
    ----------
    encoder : TextEncoder
        Tokenizer of the model.
    layout : Layout
        Special ids and time scale of the model.
    question : str
        The user's words. Special tokens spelled out in them are read as plain text.
    media : Media
        What of the clip there is; `Media()` for none.
    system : str, optional
        System prompt; the layout's own if None.

    Returns
    -------
    Prompt

    Raises
    ------
    UsageError
        If the question is empty, or not text.
    """
    if not question.strip():
        raise UsageError("The question is empty.", hint="Ask something about the clip.")
    _legible(question, "question")
    _legible(system or "", "system prompt")
    before, after = render_chat(layout, question, media, system)
    head, head_kinds = _encode(encoder, before)
    tail, tail_kinds = _encode(encoder, after)
    if not media:
        ids, kinds = head + tail, np.array(head_kinds + tail_kinds)
        return Prompt(
            torch.tensor(ids), positions(layout, media, len(head), len(tail)), _text_map(kinds)
        )
    cells = video_cells(layout, media.grid) if media.grid else np.empty((0, 3), np.int64)
    order = placeholder_order(layout, media, cells)
    clip = _clip_ids(layout, media, order, len(cells))
    markers = (len(clip) - len(order)) // 2
    edge = [int(Kind.MARKER)] * markers
    inside = np.where(order < len(cells), int(Kind.VIDEO), int(Kind.AUDIO)).tolist()
    kinds = np.array([*head_kinds, *edge, *inside, *edge, *tail_kinds])
    tokens = _text_map(kinds)
    _place(layout, media, tokens, cells, order, len(head) + markers)
    return Prompt(
        torch.tensor([*head, *clip, *tail]),
        positions(layout, media, len(head), len(tail)),
        tokens,
    )


def _text_map(kinds: np.ndarray) -> TokenMap:
    """TokenMap in which no token has a place yet."""
    n = len(kinds)
    return TokenMap(
        kind=torch.from_numpy(kinds.astype(np.int8)),
        chunk=torch.full((n,), -1, dtype=torch.int32),
        time=torch.full((n,), float("nan")),
        grid=torch.full((n, 3), -1, dtype=torch.int32),
    )


def _place(
    layout: Layout, media: Media, tokens: TokenMap, cells: np.ndarray, order: np.ndarray, first: int
) -> None:
    """Write chunk, time and cell of the clip's tokens, the first of which is token `first`."""
    audio = np.arange(media.audio_tokens)
    heard = np.stack([audio, np.full_like(audio, -1), np.full_like(audio, -1)], axis=1)
    chunk, seconds = audio // layout.chunk_positions, audio / layout.positions_per_second
    if media.grid is not None:
        step = grid_positions(layout, media)[cells[:, 0]]
        chunk = np.concatenate([step // layout.chunk_positions, chunk])
        seconds = np.concatenate([cells[:, 0] * float(media.second_per_grid or 0.0), seconds])
    where = slice(first, first + len(order))
    grid = np.concatenate([cells, heard])[order].astype(np.int32)
    tokens.grid[where] = torch.from_numpy(grid)
    tokens.chunk[where] = torch.from_numpy(chunk[order].astype(np.int32))
    times = (media.start + seconds[order]).astype(np.float32)
    tokens.time[where] = torch.from_numpy(times)


def long_position_notice(prompt: Prompt, limit: int = 32768) -> str | None:
    """Say so if a prompt's positions leave the range a model was trained on.

    Parameters
    ----------
    prompt : Prompt
    limit : int
        Positions the model was trained on.

    Returns
    -------
    str or None
        One sentence for a person, or None if all is well.
    """
    if prompt.next_position <= limit:
        return None
    return (
        f"The prompt reaches position {prompt.next_position - 1}, beyond the {limit} the model was "
        "trained on (25 a second), so answers may suffer; a shorter span (--start, --end) helps."
    )
