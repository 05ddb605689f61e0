"""Rotary angles by several axes: which position turns which pair of a head's channels.

The pairs of a head turn at falling frequencies. They are divided into sections, and each section
turns by one axis of the positions: time, row and column in turn. Three sections are M-RoPE. A
fourth one, which begins the turn again, gives the lowest frequencies to time: the axes are then
[T, H, W, T], the Sync-RoPE of EchoingPixels (https://arxiv.org/abs/2512.10324).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

#: Axes of positions: time, row, column.
AXES = 3

#: Pairs of a head with 64 of them in each section of Sync-RoPE (public code:
#: https://github.com/CharlesGong12/EchoingPixels).
SYNC = (18, 18, 18, 10)


def sync_sections(pairs: int) -> tuple[int, int, int, int]:
    """Return the sections of Sync-RoPE for heads of any size, in the published proportion.

    Parameters
    ----------
    pairs : int
        Half of a head's channels, 4 or more.
    """
    if pairs < 4:
        raise ValueError(f"{pairs} pairs of channels cannot be four sections")
    each = max(pairs * SYNC[0] // sum(SYNC), 1)
    return each, each, each, pairs - 3 * each


def frequencies(head_dim: int, theta: float) -> torch.Tensor:
    """Return the angle per position of each pair, falling, (head_dim / 2,) float32 on the CPU."""
    return 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim)


def angles(
    positions: torch.Tensor, turning: torch.Tensor, sections: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cosines and sines that turn queries and keys.

    Parameters
    ----------
    positions : Tensor, (3, ..., n)
        Time, row and column.
    turning : Tensor, (pairs,) float32
        `frequencies`, on the device of the positions.
    sections : sequence of int
        Pairs of each section; they add up to all pairs.

    Returns
    -------
    cos, sin : Tensor, (..., n, 2 · pairs) float32
        The pairs twice: channel i turns together with channel i + pairs.
    """
    each = positions[..., None].float() * turning
    sizes = list(sections)

    def joined(values: torch.Tensor) -> torch.Tensor:
        parts = [part[i % AXES] for i, part in enumerate(values.split(sizes, dim=-1))]
        half = torch.cat(parts, dim=-1)
        return torch.cat((half, half), dim=-1)

    return joined(each.cos()), joined(each.sin())


def turned(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn the channels of heads, (..., n, head_dim), by angles that broadcast to them."""
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-second, first), dim=-1) * sin
