"""Order and M-RoPE positions of a clip's tokens: arithmetic only, no text and no model.

Equal to the reference's (`Qwen2_5OmniProcessor.replace_video_with_audio_token` for the order and
`get_rope_index` for the positions, transformers), quirks included, without its loop over every
token. The two disagree with each other now and then: one counts in float64, the other in float32
cut off to integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from omnidrop.tokens import Media


@dataclass(frozen=True)
class Layout:
    """What a prompt needs to know of a model family.

    Attributes
    ----------
    im_start, im_end : int
        Ids that open and close a turn of the chat.
    video, audio : int
        Placeholder ids, one per video or audio token.
    vision_bos, vision_eos, audio_bos, audio_eos : int
        Ids around what is seen and what is heard.
    positions_per_second : int
        Temporal positions per second of clip; audio has as many tokens.
    seconds_per_chunk : float
        Length of one interleave unit in seconds.
    merge : int
        Patches along one side of a video token.
    system : str
        System prompt when none is given.
    """

    im_start: int
    im_end: int
    video: int
    audio: int
    vision_bos: int
    vision_eos: int
    audio_bos: int
    audio_eos: int
    positions_per_second: int = 25
    seconds_per_chunk: float = 2.0
    merge: int = 2
    system: str = "You are a helpful assistant."

    @property
    def chunk_positions(self) -> int:
        """Temporal positions of one chunk."""
        return int(self.positions_per_second * self.seconds_per_chunk)


def _chunk_counter(position: np.ndarray, chunk: int) -> np.ndarray:
    """Which part of the interleaving each token falls into, as the reference counts.

    It cuts at most once per token, so steps longer than a chunk are cut inside a grid: the counter
    at token i is min(previous + 1, f_i) with f = position // chunk, which is i + cummin(f_j - j).
    """
    whole = np.floor_divide(position, chunk)
    # The reference compares with multiples of the chunk; a quotient may have been rounded.
    whole -= position < whole * chunk
    whole += position >= (whole + 1) * chunk
    place = np.arange(len(position))
    return place + np.minimum.accumulate(whole.astype(np.int64) - place)


@dataclass(frozen=True)
class _Interleaved:
    """Tokens of a clip in prompt order: `order` indexes the video tokens, then the audio tokens."""

    order: np.ndarray
    last: int  # how many tokens the last part has

    @staticmethod
    def of(video: np.ndarray, audio: np.ndarray, chunk: int) -> _Interleaved:
        key = np.concatenate(
            [2 * _chunk_counter(video, chunk), 2 * _chunk_counter(audio, chunk) + 1]
        )
        order = np.argsort(key, kind="stable")
        return _Interleaved(order, int((key == key[order[-1]]).sum()))


def video_cells(layout: Layout, grid: tuple[int, int, int]) -> np.ndarray:
    """(t, h, w) of every video token, (n, 3) int64, in the order of the tower's output."""
    shape = (grid[0], grid[1] // layout.merge, grid[2] // layout.merge)
    return np.indices(shape).reshape(3, -1).T


def grid_positions(layout: Layout, media: Media) -> np.ndarray:
    """Temporal position of each grid step from the clip's start: float32, cut off, as in torch."""
    assert media.grid is not None
    assert media.second_per_grid is not None
    step = np.float32(media.second_per_grid)
    steps = np.arange(media.grid[0], dtype=np.float32)
    return (steps * step * np.float32(layout.positions_per_second)).astype(np.int64)


def placeholder_order(layout: Layout, media: Media, cells: np.ndarray) -> np.ndarray:
    """Placeholder order of video tokens (0..nv-1) and audio tokens (nv..), as the processor's."""
    audio = np.arange(media.audio_tokens)
    if media.grid is None or not media.audio_tokens:
        return np.arange(len(cells) + media.audio_tokens)
    # The processor counts in float64 and does not cut off; positions below do both otherwise.
    seconds = cells[:, 0] * float(media.second_per_grid or 0.0)
    video = seconds * layout.positions_per_second
    return _Interleaved.of(video, audio, layout.chunk_positions).order


def positions(layout: Layout, media: Media, before: int, after: int) -> torch.Tensor:
    """M-RoPE positions of a prompt, equal to the reference's `get_rope_index`.

    Parameters
    ----------
    layout : Layout
    media : Media
    before, after : int
        Text tokens before and after the clip; the markers around the clip are not among them.

    Returns
    -------
    Tensor, (3, N) int64
        Temporal, height and width position per token.

    Notes
    -----
    The two opening markers share a position and so do the two closing ones. The closing ones
    follow the last part of the interleaving, not the highest position so far.
    """
    if not media:
        return torch.arange(before + after).expand(3, -1).clone()
    first = before + 1
    audio = np.arange(media.audio_tokens)
    pieces = [np.tile(np.arange(before), (3, 1))]
    if media.grid is None:
        clip, end, markers = np.tile(first + audio, (3, 1)), first + len(audio), 1
    else:
        cells = video_cells(layout, media.grid).T.copy()
        cells[0] = grid_positions(layout, media)[cells[0]]
        markers = 2 if media.audio_tokens else 1
        if media.audio_tokens:
            mixed = _Interleaved.of(cells[0], audio, layout.chunk_positions)
            clip = np.concatenate([cells, np.tile(audio, (3, 1))], axis=1)[:, mixed.order] + first
            end = int(clip[:, -mixed.last :].max()) + 1
        else:
            clip = cells + first
            end = int(clip.max()) + 1
    pieces.append(np.full((3, markers), before))
    pieces.append(clip)
    pieces.append(np.full((3, markers), end))
    pieces.append(np.tile(end + 1 + np.arange(after), (3, 1)))
    return torch.from_numpy(np.concatenate(pieces, axis=1).astype(np.int64))
