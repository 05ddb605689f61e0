"""Attention windows of a frame's patches, and attention inside all windows in one call."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Windows(NamedTuple):
    """The attention windows of one frame.

    Attributes
    ----------
    tokens : Tensor, (h/merge · w/merge,) int64
        Tokens of a frame, sorted by the size of their window, then by window.
    back : Tensor, (h/merge · w/merge,) int64
        The inverse of `tokens`.
    groups : tuple of (int, int)
        Number of windows and patches per window, in that order.
    cos, sin : Tensor, (h · w, 1, head_dim) float32
        Rotary angles of the patches in that order.
    """

    tokens: Tensor
    back: Tensor
    groups: tuple[tuple[int, int], ...]
    cos: Tensor
    sin: Tensor


def window_bounds(groups: tuple[tuple[int, int], ...], frames: int) -> Tensor:
    """Return the start of every window of a batch of frames, and the end of the last.

    Parameters
    ----------
    groups : tuple of (int, int)
        Windows of a frame, as in `Windows`.
    frames : int

    Returns
    -------
    Tensor, (frames · windows + 1,) int32
    """
    lengths = [length for count, length in groups for _ in range(count)]
    ends = torch.tensor(lengths * frames, dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return torch.cat([ends.new_zeros(1), ends])


@cache
def varlen_attention() -> Any | None:
    """Return PyTorch's attention for sequences of unequal length; None before PyTorch 2.10."""
    try:
        return import_module("torch.nn.attention.varlen").varlen_attn
    except ImportError:
        return None


def attend_by_length(
    states: tuple[Tensor, ...], bounds: Tensor, groups: tuple[tuple[int, int], ...]
) -> Tensor:
    """Attend inside windows of unequal length in one call.

    Parameters
    ----------
    states : tuple of Tensor, (frames, size, heads, head_dim)
        Queries, keys and values.
    bounds : Tensor, (windows + 1,) int32
        Start of each window of the batch, and end of the last.
    groups : tuple of (int, int)
        As in `Windows`.

    Returns
    -------
    Tensor, (frames · size, heads · head_dim)
    """
    most = max(length for _, length in groups)
    attention: Any = varlen_attention()
    out: Tensor = attention(*(x.flatten(0, 1) for x in states), bounds, bounds, most, most)
    return out.flatten(1)
