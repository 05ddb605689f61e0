"""Rotary position embedding as the library computes it, with fewer copies."""

from __future__ import annotations

from torch import Tensor


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys by their positions' angles.

    To the bit ``states * cos + rotate_half(states) * sin``, without the copy that is turned by a
    quarter.

    Parameters
    ----------
    states : Tensor, (..., head_dim)
    cos, sin : Tensor, (..., head_dim)
        In the dtype of the states; broadcast against them.

    Returns
    -------
    Tensor, (..., head_dim)
        A new tensor, laid out in memory as `states` is.
    """
    half = states.shape[-1] // 2
    turned = states * cos
    turned[..., :half] -= states[..., half:] * sin[..., :half]
    turned[..., half:] += states[..., :half] * sin[..., half:]
    return turned
