"""video-SALMONN 2+'s prompt: chat, order and M-RoPE positions of a clip's tokens, audio tokens.

The order is that of the published code (github.com/bytedance/video-SALMONN-2, `qwenvl/data`): each
grid of video, then the audio that is heard until the next grid. Positions exist in two conventions,
because the published code disagrees with itself:

    published   what its `generate` computes. The lengths of the audio do not reach it, nor the true
                rate of the frames: the first t·h·w tokens of the clip, of whatever kind, take the
                positions of a grid of video with two temporal positions per step; the tokens after
                them count on, one by one.
    trained     what its training computes: video by its time, audio by its index (time, 0, time),
                text after the last time.

Which of them answers better has not been measured here.
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
from omnidrop.models.mrope import clip_map, video_cells
from omnidrop.models.video_salmonn2.sizes import FRAMES_PER_POSITION, AudioConfig, audio_config
from omnidrop.tokens import Asked, ClipTokens, Media, Piece

#: Template field → special token of the tokenizer.
SPECIALS = {
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "video": "<|video_pad|>",
    "audio": "<|audio_pad|>",
    "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
}

#: Grids of video per second at the published rate: ten frames a second, two per grid.
_GRIDS_PER_SECOND = 5
#: Temporal positions from grid to grid in the published convention.
_PER_GRID = 2


@dataclass(frozen=True, kw_only=True)
class SalmonnTemplate(ChatML):
    """The prompt of video-SALMONN 2+; see `omnidrop.models.family.Template`.

    Attributes
    ----------
    video, audio : int
        Placeholder ids, one per video or audio token.
    vision_start, vision_end : int
        Ids around a clip, be it video, audio or both.
    convention : {"published", "trained"}
        How positions are counted; see the module.
    piece_frames, piece_tokens : int
        Log-mel frames and tokens of a piece of audio.
    audio_per_second : Fraction
        Audio tokens per second, and temporal positions per second in the trained convention.
    chunk_seconds : float
        Length of a temporal chunk of the clip; the model itself has none.
    merge : int
        Patches along one side of a video token.
    max_positions : int
        Positions the model was trained on.
    """

    system: str | None = "You are a helpful assistant."
    video: int
    audio: int
    vision_start: int
    vision_end: int
    convention: str = "published"
    piece_frames: int = 3000
    piece_tokens: int = 60
    audio_per_second: Fraction = Fraction(2)
    chunk_seconds: float = 2.0
    merge: int = 2
    max_positions: int = 128_000

    @property
    def positions_per_second(self) -> float:
        """Temporal positions per second, in the published convention at the published rate."""
        if self.convention == "published":
            return float(_PER_GRID * _GRIDS_PER_SECOND)
        return float(self.audio_per_second)

    @property
    def mel_per_token(self) -> Fraction:
        """Log-mel frames of a token."""
        return Fraction(self.piece_frames, self.piece_tokens)

    @property
    def position_dtype(self) -> torch.dtype:
        """Positions are whole numbers."""
        return torch.int64

    def audio_tokens(self, mel_frames: int) -> int:
        """Return the number of audio tokens: an incomplete piece counts, and is encoded, whole."""
        return -(-mel_frames // self.piece_frames) * self.piece_tokens

    def next_position(self, positions: torch.Tensor) -> int | float:
        """Return the position after the last token's."""
        return positions[:, -1].max().item() + 1

    def chat(
        self, question: str, system: str | None, *, media: bool
    ) -> tuple[list[Piece], list[Piece]]:
        """Write the chat; a line break stands between clip and question."""
        before, after = super().chat(question, system, media=media)
        if media:
            after = [Asked(f"\n{question}", 1), *after[1:]]
        return before, after

    def clip(self, media: Media, start: int) -> ClipTokens:
        """Lay out a clip between its two markers."""
        cells = np.empty((0, 3), np.int64)
        if media.grid is not None:
            cells = video_cells(media.grid, self.merge)
        order = self._order(media, cells)
        count = self._published if self.convention == "published" else self._trained
        inside, after = count(media, cells, order)
        end = start + 1 + after
        edges = (np.full((3, 1), start), start + 1 + inside, np.full((3, 1), end))
        ids = np.where(order < len(cells), self.video, self.audio)
        return ClipTokens(
            ids=torch.from_numpy(
                np.concatenate([[self.vision_start], ids, [self.vision_end]]).astype(np.int64)
            ),
            tokens=clip_map(
                cells, media.audio_tokens, self._chunks(media, cells), order, markers=1
            ),
            positions=torch.from_numpy(np.concatenate(edges, axis=1).astype(np.int64)),
            end=end + 1,
        )

    def _grid_times(self, media: Media) -> np.ndarray:
        """Audio tokens before each grid: its time, truncated, in float32 as in torch."""
        assert media.grid is not None
        step = np.float32(media.second_per_grid or 0.0)
        steps = np.arange(media.grid[0], dtype=np.float32)
        return (steps * step * np.float32(self.audio_per_second)).astype(np.int64)

    def _order(self, media: Media, cells: np.ndarray) -> np.ndarray:
        """Prompt order of video tokens (0 to nv - 1) and audio tokens.

        Audio that ends before the video is spread over the grids while it lasts; the published code
        fails there.
        """
        audio = np.arange(media.audio_tokens)
        if media.grid is None or not media.audio_tokens:
            return np.arange(len(cells) + media.audio_tokens)
        # Grid after which each audio token stands; the last takes what is left.
        follows = np.searchsorted(self._grid_times(media)[1:], audio, side="right")
        return np.argsort(np.concatenate([2 * cells[:, 0], 2 * follows + 1]), kind="stable")

    def _chunks(self, media: Media, cells: np.ndarray) -> np.ndarray:
        """Chunk of every video token, then of every audio token."""
        audio = np.arange(media.audio_tokens) / float(self.audio_per_second)
        video = cells[:, 0] * float(media.second_per_grid or 0.0)
        return (np.concatenate([video, audio]) / self.chunk_seconds).astype(np.int64)

    def _published(
        self, media: Media, cells: np.ndarray, order: np.ndarray
    ) -> tuple[np.ndarray, int]:
        """Positions by place in the prompt, (3, n), from 0, and the first position after them."""
        video = cells.T.copy()
        video[0] *= _PER_GRID
        begin = int(video.max()) + 1 if len(cells) else 0
        rest = np.tile(begin + np.arange(media.audio_tokens), (3, 1))
        return np.concatenate([video, rest], axis=1), begin + media.audio_tokens

    def _trained(
        self, media: Media, cells: np.ndarray, order: np.ndarray
    ) -> tuple[np.ndarray, int]:
        """Positions by time, (3, n), from 0, and the first position after them.

        Audio alone has (t, t, 0), audio with video (t, 0, t). Text goes on after the highest time
        if there is audio, after the highest of all positions if there is none.
        """
        index = np.arange(media.audio_tokens)
        if media.grid is None:
            return np.stack([index, index, 0 * index]), media.audio_tokens
        video = cells.T.copy()
        video[0] = self._grid_times(media)[video[0]]
        both = np.concatenate([video, np.stack([index, 0 * index, index])], axis=1)[:, order]
        last = both[0].max() if media.audio_tokens else both.max()
        return both, int(last) + 1


def template(
    codec: TextCodec | None, config: Any, name: str, convention: str = "published"
) -> SalmonnTemplate:
    """Make the template of a checkpoint.

    Parameters
    ----------
    codec : TextCodec or None
        The checkpoint's tokenizer. Without one the ids are made up: an estimate only counts tokens.
    config : Qwen2_5_VLConfig or None
        None for the published values.
    name : str
        Name of the model, for errors.
    convention : {"published", "trained"}
        How positions are counted.

    Raises
    ------
    ModelError
        If the tokenizer does not match the config.
    """
    stated = {} if config is None else {"video": config.video_token_id}
    if hasattr(config, "audio_token_id"):
        stated["audio"] = config.audio_token_id
    known: dict[str, Any] = dict(special_ids(codec, SPECIALS, stated, name), convention=convention)
    audio = AudioConfig() if config is None else audio_config(config)
    known |= {
        "piece_frames": FRAMES_PER_POSITION * audio.positions,
        "piece_tokens": audio.piece_tokens,
        "audio_per_second": audio.tokens_per_second,
    }
    if config is None:
        return SalmonnTemplate(**known)
    return SalmonnTemplate(
        **known,
        merge=int(config.vision_config.spatial_merge_size),
        max_positions=int(config.text_config.max_position_embeddings),
    )
