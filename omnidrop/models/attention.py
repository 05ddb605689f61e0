"""Parts of the decoder's attention, with fewer copies than the library makes."""

from __future__ import annotations

import torch
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


def attend_from_few(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    scaling: float,
) -> Tensor:
    """Attend over many keys from few rows.

    Rows whose heads share keys stand under each other, so that no key is repeated for a head: with
    a mask the library repeats all of them, every layer anew.

    Parameters
    ----------
    queries : Tensor, (1, heads, n, head_dim)
    keys, values : Tensor, (1, kv_heads, s, head_dim)
    mask : Tensor, (1, 1, n, s) bool
        True where a row sees a key.
    scaling : float

    Returns
    -------
    Tensor, (1, n, heads, head_dim)
    """
    kv_heads, rows = keys.shape[1], queries.shape[2]
    groups = queries.shape[1] // kv_heads
    packed = queries.unflatten(1, (kv_heads, groups)).flatten(2, 3)
    out = torch.nn.functional.scaled_dot_product_attention(
        packed, keys, values, attn_mask=mask.repeat(1, 1, groups, 1), scale=scaling
    )
    return out.unflatten(2, (groups, rows)).flatten(1, 2).transpose(1, 2)
