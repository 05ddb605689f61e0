"""Attention by transformers' functions, and attention from few rows without repeating keys."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from omnidrop.models import kernels
from omnidrop.models.kernels import Choice


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool | None = None,
    shared: bool = False,
) -> Tensor:
    """Attend by transformers' attention functions, or on CUDA as `kernels` chooses.

    Parameters
    ----------
    module : Module
        The attention module of transformers; its config names the implementation.
    query : Tensor, (b, heads, n, head_dim)
    key, value : Tensor, (b, kv_heads, s, head_dim)
    mask : Tensor, (b, 1, n, s), optional
        In the form that the implementation takes.
    causal : bool, optional
        Whether attention is causal, if there is no mask; default as the module declares.
    shared : bool
        Whether other layers make calls of the same sizes; see `kernels.choose`.

    Returns
    -------
    Tensor, (b, n, heads · head_dim)
    """
    name = module.config._attn_implementation
    rows, keys = query.shape[2], key.shape[2]
    if name == "sdpa" and mask is None and (causal is False or rows in (1, keys)):
        choice = kernels.choose(query.device, rows, keys, shared=shared)
        if choice is Choice.PLANLESS:
            causal = module.is_causal if causal is None else causal
            out = kernels.planless(query, key, value, causal=causal, scaling=module.scaling)
            return out.flatten(2)
    # Each modelling file of transformers defines its own eager attention.
    eager = sys.modules[type(module).__module__].eager_attention_forward
    implementation = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)
    out, _ = implementation(
        module, query, key, value, mask, scaling=module.scaling, dropout=0.0, is_causal=causal
    )
    return out.flatten(2)


def causal_mask(implementation: str, new: int, past: int, like: Tensor) -> Tensor | None:
    """Return a causal mask (1, 1, new, past + new), or None if attention needs none.

    A single row attends to all keys. Flash attention aligns its causal mask to the last key; sdpa
    aligns it to the first, which is right only while nothing is cached.

    Parameters
    ----------
    implementation : str
        As in the module's config.
    new, past : int
        Number of new rows, and of keys before them.
    like : Tensor
        Gives the device, and the dtype of a mask that is added.
    """
    if new == 1 or implementation.startswith("flash"):
        return None
    if past == 0 and implementation == "sdpa":
        return None
    visible = torch.ones(new, past + new, dtype=torch.bool, device=like.device).tril(past)
    if implementation == "sdpa":
        return visible[None, None]
    blocked = torch.zeros(visible.shape, dtype=like.dtype, device=like.device)
    return blocked.masked_fill_(~visible, torch.finfo(like.dtype).min)[None, None]


def attend_from_few(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    scaling: float,
) -> Tensor:
    """Attend from few rows to many keys.

    Grouped-query attention without repeating keys: the heads that share keys are folded into the
    query axis. With a mask, transformers repeats all keys for each head, in every layer.

    Parameters
    ----------
    queries : Tensor, (1, heads, n, head_dim)
    keys, values : Tensor, (1, kv_heads, s, head_dim)
    mask : Tensor, (1, 1, n, s) bool
        True where a row attends to a key.
    scaling : float

    Returns
    -------
    Tensor, (1, n, heads · head_dim)
    """
    kv_heads, rows = keys.shape[1], queries.shape[2]
    groups = queries.shape[1] // kv_heads
    packed = queries.unflatten(1, (kv_heads, groups)).flatten(2, 3)
    out = torch.nn.functional.scaled_dot_product_attention(
        packed, keys, values, attn_mask=mask.repeat(1, 1, groups, 1), scale=scaling
    )
    return out.unflatten(2, (groups, rows)).flatten(1, 2).transpose(1, 2).flatten(2)
