"""Qwen3-Omni's prompt: chat, order and M-RoPE positions of a clip's tokens, audio tokens.

The results equal the reference's (transformers: `Qwen3OmniMoeProcessor` for the order,
`get_rope_index` for the positions), quirks included, without its loop over every token. The two
sometimes disagree with each other: the first merges by time in float64, the second in float32.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omnidrop.errors import ModelError
from omnidrop.models.adapter import TextCodec
from omnidrop.models.chatml import ChatML
from omnidrop.models.family import special_ids
from omnidrop.models.mrope import clip_map, video_cells
from omnidrop.models.qwen3_omni.sizes import TOKENS_PER_CHUNK
from omnidrop.tokens import ClipTokens, Media

#: Template field → special token of the tokenizer.
SPECIALS = {
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "video": "<|video_pad|>",
    "audio": "<|audio_pad|>",
    "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
    "audio_start": "<|audio_start|>",
    "audio_end": "<|audio_end|>",
}

#: Tokens around what a thinking model writes before its answer.
THINK, END_OF_THOUGHT = "<think>", "</think>"

#: Files that may hold a checkpoint's chat template, in the order in which transformers looks.
_CHAT_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")


def audio_token_count(mel_frames: int, chunk: int = 100) -> int:
    """Return the number of tokens that the audio encoder makes of `mel_frames` frames.

    Parameters
    ----------
    mel_frames : int
    chunk : int
        Frames that the encoder's convolutions see at once, a second.

    Notes
    -----
    `_get_feat_extract_output_lengths` of transformers: three convolutions halve the frames of
    every chunk, so that 100 become 13.
    """
    rest = mel_frames % chunk
    for _ in range(3):
        rest = (rest - 1) // 2 + 1
    return max(0, rest + mel_frames // chunk * TOKENS_PER_CHUNK)


@dataclass(frozen=True, kw_only=True)
class Qwen3OmniTemplate(ChatML):
    """The prompt of Qwen3-Omni; see `omnidrop.models.family.Template`.

    Attributes
    ----------
    video, audio : int
        Placeholder ids, one per video or audio token.
    vision_start, vision_end, audio_start, audio_end : int
        Ids around video and audio.
    positions_per_second : int
        Temporal positions per second of clip, and audio tokens per second.
    merge : int
        Patches along one side of a video token.
    max_positions : int
        Positions the model was trained on.
    chunk_frames : int
        Log-mel frames of a chunk of the audio encoder.
    """

    video: int
    audio: int
    vision_start: int
    vision_end: int
    audio_start: int
    audio_end: int
    positions_per_second: int = 13
    merge: int = 2
    max_positions: int = 65536
    chunk_frames: int = 100

    @property
    def chunk_seconds(self) -> float:
        """Seconds of a chunk. The prompt itself has none: video and audio are merged by time."""
        return 2.0

    @property
    def mel_per_token(self) -> Fraction:
        """Log-mel frames per audio token."""
        return Fraction(self.chunk_frames, TOKENS_PER_CHUNK)

    @property
    def position_dtype(self) -> torch.dtype:
        """Times are not rounded."""
        return torch.float32

    def audio_tokens(self, mel_frames: int) -> int:
        """Return the number of audio tokens of `mel_frames` log-mel frames."""
        return audio_token_count(mel_frames, self.chunk_frames)

    def next_position(self, positions: torch.Tensor) -> int | float:
        """Return the highest position plus one, rounded as in the reference.

        The reference keeps the distance to the number of tokens in float32, and adds it to that.
        """
        tokens = positions.shape[1]
        return float(positions.max() + 1 - tokens + tokens)

    def clip(self, media: Media, start: int) -> ClipTokens:
        """Lay out a clip.

        Notes
        -----
        The opening markers have consecutive positions, and so do the closing ones. Those follow the
        last run of tokens of one modality, not the highest position so far.
        """
        cells = np.empty((0, 3), np.int64)
        opening, closing = [], []
        if media.grid is not None:
            cells = video_cells(media.grid, self.merge)
            opening, closing = [self.vision_start], [self.vision_end]
        if media.audio_tokens:
            opening, closing = [*opening, self.audio_start], [self.audio_end, *closing]
        markers = len(opening)
        video = self._seconds(media, np.float64)[cells[:, 0]] * float(self.positions_per_second)
        order = _by_time(video, media.audio_tokens)
        inside, end = self._positions(media, cells, start + markers)
        edge = np.arange(markers, dtype=np.float32)
        edges = (np.tile(start + edge, (3, 1)), inside, np.tile(end + edge, (3, 1)))
        ids = np.where(order < len(cells), self.video, self.audio)
        chunks = np.concatenate([video, np.arange(media.audio_tokens)])
        chunks = (chunks / (self.positions_per_second * self.chunk_seconds)).astype(np.int64)
        return ClipTokens(
            ids=torch.from_numpy(np.concatenate([opening, ids, closing]).astype(np.int64)),
            tokens=clip_map(cells, media.audio_tokens, chunks, order, markers),
            positions=torch.from_numpy(np.concatenate(edges, axis=1).astype(np.float32)),
            end=float(end + np.float32(markers)),
        )

    @staticmethod
    def _seconds(media: Media, dtype: type[np.floating[Any]]) -> np.ndarray:
        """Time of each grid from the clip's start, in seconds."""
        if media.grid is None:
            return np.empty(0, dtype)
        steps: np.ndarray = np.arange(media.grid[0]).astype(dtype) * dtype(media.second_per_grid)
        return steps

    def _positions(
        self, media: Media, cells: np.ndarray, first: int
    ) -> tuple[np.ndarray, np.float32]:
        """Positions of the clip's tokens from `first` on, (3, n), and of the closing markers."""
        audio = np.tile(np.arange(media.audio_tokens, dtype=np.float32), (3, 1))
        video = cells.T.astype(np.float32)
        seconds = self._seconds(media, np.float32)
        video[0] = (seconds * np.float32(self.positions_per_second))[cells[:, 0]]
        start = np.float32(first)
        video, audio = video + start, audio + start
        order = np.argsort(np.concatenate([video[0], audio[0]]), kind="stable")
        both = np.concatenate([video, audio], axis=1)[:, order]
        is_video = order < len(cells)
        changes = np.flatnonzero(is_video[1:] != is_video[:-1])
        last = both[:, changes[-1] + 1 :] if len(changes) else both
        return both, np.float32(last.max() + np.float32(1))


def _by_time(video: np.ndarray, audio_tokens: int) -> np.ndarray:
    """Return the order of video tokens (0 to nv - 1) and audio tokens by their positions.

    Of a video and an audio token at the same position, video is first.
    """
    return np.argsort(np.concatenate([video, np.arange(audio_tokens)]), kind="stable")


def opens_with_a_thought(folder: Path | None) -> bool:
    """Whether the chat template of a checkpoint begins an answer inside a thought.

    The template is not run: what follows its last mention of the generation prompt is searched.

    Raises
    ------
    ModelError
        If a file is not JSON.
    """
    for name in _CHAT_FILES if folder is not None else ():
        path = Path(folder or "") / name
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
            chat = text if name.endswith("jinja") else json.loads(text).get("chat_template")
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(f"This file cannot be read as JSON: {error}.", path=path) from error
        if isinstance(chat, str):
            end = chat.rpartition("add_generation_prompt")[2]
            return THINK in end and END_OF_THOUGHT not in end
    return False


def template(
    codec: TextCodec | None, config: Any, name: str, opening: tuple[int | str, ...] = ()
) -> Qwen3OmniTemplate:
    """Make the template of a checkpoint.

    Parameters
    ----------
    codec : TextCodec or None
        The checkpoint's tokenizer. Without one the ids are made up: an estimate only counts tokens.
    config : Qwen3OmniMoeThinkerConfig or None
        None for the published values.
    name : str
        Name of the model, for errors.
    opening : tuple of int or str
        What an answer starts with.

    Raises
    ------
    ModelError
        If the tokenizer does not match the config.
    """
    stated = {}
    if config is not None:
        stated = {
            "video": config.video_token_id,
            "audio": config.audio_token_id,
            "vision_start": config.vision_start_token_id,
            "audio_start": config.audio_start_token_id,
        }
    known: dict[str, Any] = dict(special_ids(codec, SPECIALS, stated, name), opening=opening)
    if config is None:
        return Qwen3OmniTemplate(**known)
    return Qwen3OmniTemplate(
        **known,
        positions_per_second=int(config.position_id_per_seconds),
        merge=int(config.vision_config.spatial_merge_size),
        max_positions=int(config.text_config.max_position_embeddings),
        chunk_frames=2 * int(config.audio_config.n_window),
    )
