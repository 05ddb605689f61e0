"""Qwen2.5-Omni's prompt: chat, order and M-RoPE positions of a clip's tokens, audio tokens.

The results equal the reference's (transformers: `Qwen2_5OmniProcessor.
replace_video_with_audio_token` for the order, `get_rope_index` for the positions), quirks included,
without its loop over every token. The two sometimes disagree with each other: the first counts in
float64, the second in float32 truncated to integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from omnidrop.models.adapter import TextCodec
from omnidrop.models.chatml import ChatML
from omnidrop.models.family import special_ids
from omnidrop.models.mrope import after_highest, clip_map, video_cells
from omnidrop.tokens import ClipTokens, Media

#: Template field → special token of the tokenizer.
SPECIALS = {
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "video": "<|VIDEO|>",
    "audio": "<|AUDIO|>",
    "vision_bos": "<|vision_bos|>",
    "vision_eos": "<|vision_eos|>",
    "audio_bos": "<|audio_bos|>",
    "audio_eos": "<|audio_eos|>",
}


def audio_token_count(mel_frames: int) -> int:
    """Return the number of tokens that the audio encoder makes of `mel_frames` frames.

    Notes
    -----
    ``_get_feat_extract_output_lengths`` of transformers: a convolution halves the frames, then
    pairs are pooled, so 100 frames a second become 25 tokens.
    """
    return max(0, ((mel_frames - 1) // 2 + 1 - 2) // 2 + 1)


@dataclass(frozen=True, kw_only=True)
class QwenOmniTemplate(ChatML):
    """The prompt of Qwen2.5-Omni; see `omnidrop.models.family.Template`.

    Attributes
    ----------
    video, audio : int
        Placeholder ids, one per video or audio token.
    vision_bos, vision_eos, audio_bos, audio_eos : int
        Ids around video and audio.
    positions_per_second : int
        Temporal positions per second of clip, and audio tokens per second.
    seconds_per_chunk : float
        Length of one interleave unit in seconds.
    merge : int
        Patches along one side of a video token.
    max_positions : int
        Positions the model was trained on.
    """

    system: str | None = "You are a helpful assistant."
    video: int
    audio: int
    vision_bos: int
    vision_eos: int
    audio_bos: int
    audio_eos: int
    positions_per_second: int = 25
    seconds_per_chunk: float = 2.0
    merge: int = 2
    max_positions: int = 32768

    @property
    def chunk_seconds(self) -> float:
        """Seconds of one interleave unit."""
        return self.seconds_per_chunk

    @property
    def chunk_positions(self) -> int:
        """Temporal positions of one chunk."""
        return int(self.positions_per_second * self.seconds_per_chunk)

    @property
    def mel_per_token(self) -> Fraction:
        """A convolution halves 100 log-mel frames a second, and pairs are pooled."""
        return Fraction(4)

    @property
    def position_dtype(self) -> torch.dtype:
        """Positions are whole numbers."""
        return torch.int64

    def audio_tokens(self, mel_frames: int) -> int:
        """Return the number of audio tokens of `mel_frames` log-mel frames."""
        return audio_token_count(mel_frames)

    def next_position(self, positions: torch.Tensor) -> int | float:
        """Return the highest position plus one."""
        return after_highest(positions)

    def clip(self, media: Media, start: int) -> ClipTokens:
        """Lay out a clip.

        Notes
        -----
        The two opening markers share a position and so do the two closing ones. The closing ones
        follow the last part of the interleaving, not the highest position so far.
        """
        cells = np.empty((0, 3), np.int64)
        if media.grid is not None:
            cells = video_cells(media.grid, self.merge)
        order = self._order(media, cells)
        inside, end = self._positions(media, cells, start + 1)
        ids = np.where(order < len(cells), self.video, self.audio)
        opening, closing = [], []
        if media.grid is not None:
            opening, closing = [self.vision_bos], [self.vision_eos]
        if media.audio_tokens:
            opening, closing = [*opening, self.audio_bos], [self.audio_eos, *closing]
        markers = len(opening)
        edges = (np.full((3, markers), start), inside, np.full((3, markers), end))
        return ClipTokens(
            ids=torch.from_numpy(np.concatenate([opening, ids, closing]).astype(np.int64)),
            tokens=clip_map(cells, media.audio_tokens, self._chunks(media, cells), order, markers),
            positions=torch.from_numpy(np.concatenate(edges, axis=1).astype(np.int64)),
            end=end + 1,
        )

    def _grid_positions(self, media: Media) -> np.ndarray:
        """Temporal position of each grid from the clip's start: truncated float32, as in torch."""
        assert media.grid is not None
        assert media.second_per_grid is not None
        step = np.float32(media.second_per_grid)
        steps = np.arange(media.grid[0], dtype=np.float32)
        return (steps * step * np.float32(self.positions_per_second)).astype(np.int64)

    def _chunks(self, media: Media, cells: np.ndarray) -> np.ndarray:
        """Chunk of every video token, then of every audio token."""
        chunks = np.arange(media.audio_tokens) // self.chunk_positions
        if media.grid is None:
            return chunks
        grids = self._grid_positions(media) // self.chunk_positions
        return np.concatenate([grids[cells[:, 0]], chunks])

    def _order(self, media: Media, cells: np.ndarray) -> np.ndarray:
        """Prompt order of video tokens (0 to nv - 1) and audio tokens, as in the processor."""
        audio = np.arange(media.audio_tokens)
        if media.grid is None or not media.audio_tokens:
            return np.arange(len(cells) + media.audio_tokens)
        # The processor counts in float64 without truncation, unlike the positions.
        seconds = cells[:, 0] * float(media.second_per_grid or 0.0)
        video = seconds * self.positions_per_second
        return interleaved(video, audio, self.chunk_positions).order

    def _positions(self, media: Media, cells: np.ndarray, first: int) -> tuple[np.ndarray, int]:
        """Positions of the clip's tokens from `first` on, (3, n), and of the closing markers."""
        audio = np.tile(np.arange(media.audio_tokens), (3, 1))
        if media.grid is None:
            return first + audio, first + media.audio_tokens
        video = cells.T.copy()
        video[0] = self._grid_positions(media)[video[0]]
        if not media.audio_tokens:
            return first + video, first + int(video.max()) + 1
        mixed = interleaved(video[0], audio[0], self.chunk_positions)
        both = first + np.concatenate([video, audio], axis=1)[:, mixed.order]
        return both, int(both[:, -mixed.last :].max()) + 1


@dataclass(frozen=True)
class Interleaved:
    """Tokens of a clip in prompt order, chunk by chunk, video before audio.

    Attributes
    ----------
    order : ndarray, (nv + na,)
        Indices of the video tokens, then of the audio tokens.
    last : int
        Number of tokens in the last chunk.
    """

    order: np.ndarray
    last: int


def interleaved(video: np.ndarray, audio: np.ndarray, chunk: int) -> Interleaved:
    """Interleave tokens by their temporal positions.

    Parameters
    ----------
    video, audio : ndarray, (nv,) and (na,)
        Temporal positions, ascending.
    chunk : int
        Temporal positions per chunk.
    """
    key = np.concatenate([2 * _chunk_counter(video, chunk), 2 * _chunk_counter(audio, chunk) + 1])
    order = np.argsort(key, kind="stable")
    return Interleaved(order, int((key == key[order[-1]]).sum()))


def _chunk_counter(position: np.ndarray, chunk: int) -> np.ndarray:
    """Return the interleaving chunk of each token, as the reference counts.

    The reference starts at most one chunk per token, so grids longer than a chunk are split: the
    counter at token i is min(previous + 1, f_i) with f = position // chunk, which is
    i + cummin(f_j - j).
    """
    whole = np.floor_divide(position, chunk)
    # The reference compares with multiples of the chunk; a rounded quotient could differ.
    whole -= position < whole * chunk
    whole += position >= (whole + 1) * chunk
    place = np.arange(len(position))
    return place + np.minimum.accumulate(whole.astype(np.int64) - place)


def template(codec: TextCodec | None, config: Any, name: str) -> QwenOmniTemplate:
    """Make the template of a checkpoint.

    Parameters
    ----------
    codec : TextCodec or None
        The checkpoint's tokenizer. Without one the ids are made up: an estimate only counts tokens.
    config : Qwen2_5OmniThinkerConfig or None
        None for the published values.
    name : str
        Name of the model, for errors.

    Raises
    ------
    ModelError
        If the tokenizer does not match the config.
    """
    stated = {}
    if config is not None:
        stated = {"video": config.video_token_id, "audio": config.audio_token_id}
    known: dict[str, Any] = dict(special_ids(codec, SPECIALS, stated, name))
    if config is None:
        return QwenOmniTemplate(**known)
    return QwenOmniTemplate(
        **known,
        positions_per_second=int(config.position_id_per_seconds),
        seconds_per_chunk=float(config.seconds_per_chunk),
        merge=int(config.vision_config.spatial_merge_size),
        max_positions=int(config.text_config.max_position_embeddings),
    )
