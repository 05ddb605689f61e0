"""M-RoPE positions (time, row, column) of a clip's tokens; shared by the Qwen families."""

from __future__ import annotations

import numpy as np
import torch

from omnidrop.tokens import Kind, TokenMap


def video_cells(grid: tuple[int, int, int], merge: int) -> np.ndarray:
    """(t, h, w) of every video token, (n, 3) int64, in the order of the encoder's output.

    Parameters
    ----------
    grid : tuple of int
        (t, h, w) in patches.
    merge : int
        Patches along one side of a merged token.
    """
    return np.indices((grid[0], grid[1] // merge, grid[2] // merge)).reshape(3, -1).T


def after_highest(positions: torch.Tensor) -> int | float:
    """Return the highest of a prompt's positions, (3, N), plus one: where its answer starts."""
    return positions.max().item() + 1


def clip_map(
    cells: np.ndarray, audio_tokens: int, chunks: np.ndarray, order: np.ndarray, markers: int
) -> TokenMap:
    """Make the TokenMap of a clip between its markers.

    Parameters
    ----------
    cells : ndarray, (nv, 3)
        (t, h, w) of each video token.
    audio_tokens : int
    chunks : ndarray, (nv + audio_tokens,)
        Temporal chunk of the video tokens, then of the audio tokens.
    order : ndarray, (nv + audio_tokens,)
        Prompt order of the video tokens (0 to nv - 1) and the audio tokens (nv and up).
    markers : int
        Markers before the clip's tokens, and as many after them.
    """
    audio = np.arange(audio_tokens)
    outside = np.full_like(audio, -1)
    grid = np.concatenate([cells, np.stack([audio, outside, outside], axis=1)])[order]
    kind = np.where(order < len(cells), int(Kind.VIDEO), int(Kind.AUDIO))
    edges = ((markers, markers), (0, 0))
    return TokenMap(
        kind=torch.from_numpy(
            np.pad(kind, markers, constant_values=int(Kind.MARKER)).astype(np.int8)
        ),
        chunk=torch.from_numpy(np.pad(chunks[order], markers, constant_values=-1).astype(np.int32)),
        grid=torch.from_numpy(np.pad(grid, edges, constant_values=-1).astype(np.int32)),
    )
