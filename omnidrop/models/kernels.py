"""Chooses the attention kernel on a GPU, for each call.

On Hopper and Blackwell, torch prefers cuDNN's attention. It builds an execution plan for every new
pair of sizes (queries, keys), which takes about 35 ms. After pruning, every layer has its own
length, so a decode step would build one plan per layer, and the next step would build them all
again. Flash attention builds no plans. On an H100 cuDNN is faster for many rows: 6.1 ms a layer
against 9.1 for 20 000 rows and 28 heads, and the difference grows with the square of the rows. So
a plan pays only if all layers share it and there are many rows (`PLANNED_FROM`): not for a single
row or a question's rows over cached keys, not for a pruned prompt, not for an encoder's windows.

The kernel is chosen by calling it, as torch's `CausalBias` does, not by
`torch.nn.attention.sdpa_kernel`, which sets flags of the whole process and so affects other
threads. Flags that a user sets are respected: a kernel that is switched off is not used.

The rule covers torch's `scaled_dot_product_attention` only. Packages of flash attention
(``flash_attention_2``, ``flash_attention_3``), and all calls on other devices, are left alone.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

#: Rows from which 27 layers of a prefill save more time than a cuDNN plan takes (about 35 ms).
PLANNED_FROM = 16_384

#: `custom_mask_type` of torch's memory-efficient kernel: none, and causal aligned to the last key.
_UNMASKED, _CAUSAL_TO_THE_END = 0, 2


class Choice(Enum):
    """How the kernel of a call is chosen.

    Attributes
    ----------
    TORCH
        By torch, in its own order; on new GPUs cuDNN's attention comes first.
    PLANLESS
        A kernel without plans: flash, else memory-efficient, else plain matrix products.
    """

    TORCH = "torch"
    PLANLESS = "planless"


def choose(device: torch.device, rows: int, keys: int, *, shared: bool) -> Choice:
    """Return how to choose the kernel of a call of `scaled_dot_product_attention`.

    Parameters
    ----------
    device : torch.device
    rows, keys : int
        Number of queries and of keys of one head.
    shared : bool
        Whether other layers make calls of the same sizes.
    """
    if device.type != "cuda" or (shared and rows == keys and rows >= PLANNED_FROM):
        return Choice.TORCH
    return Choice.PLANLESS


def planless(query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scaling: float) -> Tensor:
    """Attend with a kernel that builds no plan.

    Parameters
    ----------
    query : Tensor, (b, heads, n, head_dim)
    key, value : Tensor, (b, kv_heads, s, head_dim)
        `heads` is a multiple of `kv_heads`.
    causal : bool
        Causal attention aligned to the end: the last row attends to all keys, the one before it to
        all but the last, and so on.
    scaling : float

    Returns
    -------
    Tensor, (b, n, heads, head_dim)
    """
    causal = causal and query.shape[2] > 1
    if _flash(query, key, value):
        out = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, causal, False, scale=scaling
        )[0]
        return out.transpose(1, 2)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    if _efficient(query, key, value):
        return torch.ops.aten._efficient_attention_forward(
            *(x.transpose(1, 2) for x in (query, key, value)),
            bias=None,
            cu_seqlens_q=None,
            cu_seqlens_k=None,
            max_seqlen_q=None,
            max_seqlen_k=None,
            dropout_p=0.0,
            custom_mask_type=_CAUSAL_TO_THE_END if causal else _UNMASKED,
            compute_log_sumexp=False,
            scale=scaling,
        )[0]
    rows, keys = query.shape[2], key.shape[2]
    visible = torch.ones(rows, keys, dtype=torch.bool, device=query.device)
    return masked(query, key, value, visible.tril(keys - rows) if causal else visible, scaling)


class Filled(NamedTuple):
    """Filled length of a buffer of fixed size, known only on the device.

    Attributes
    ----------
    used : Tensor, (1,) int32
        Number of valid tokens, from the first.
    row : Tensor, (2,) int32
        0 and 1: cumulative lengths of one query.
    room : Tensor, (2,) int32
        0 and the capacity of the buffer.
    """

    used: Tensor
    row: Tensor
    room: Tensor


def over_filled(
    query: Tensor, key: Tensor, value: Tensor, filled: Filled, *, scaling: float
) -> Tensor:
    """Attend from one row to the filled part of a buffer, without synchronising.

    Parameters
    ----------
    query : Tensor, (1, heads, 1, head_dim)
    key, value : Tensor, (1, kv_heads, capacity, head_dim)
        All values must be finite, those of the spare room included.
    filled : Filled
    scaling : float

    Returns
    -------
    Tensor, (1, 1, heads, head_dim)
    """
    if torch.version.hip is None and _flash(query, key, value):
        out = torch.ops.aten._flash_attention_forward(
            *(x[0].transpose(0, 1) for x in (query, key, value)),
            filled.row,
            filled.room,
            1,
            key.shape[2],
            0.0,
            False,
            False,
            scale=scaling,
            seqused_k=filled.used,
        )[0]
        return out[None]
    visible = torch.arange(key.shape[2], device=key.device) < filled.used
    return masked(query, key, value, visible[None], scaling)


def masked(query: Tensor, key: Tensor, value: Tensor, visible: Tensor, scaling: float) -> Tensor:
    """Attend by plain matrix products; heads that share keys are folded into the rows.

    Parameters
    ----------
    query : Tensor, (b, heads, n, head_dim)
    key, value : Tensor, (b, kv_heads, s, head_dim)
    visible : Tensor, (n, s) bool
        True where a row attends to a key.
    scaling : float

    Returns
    -------
    Tensor, (b, n, heads, head_dim)
    """
    kv_heads, rows = key.shape[1], query.shape[2]
    groups = query.shape[1] // kv_heads
    # Scaled before the product: unscaled products may overflow float16.
    packed = (query * scaling).unflatten(1, (kv_heads, groups)).flatten(2, 3)
    scores = (packed @ key.transpose(2, 3)).float().unflatten(2, (groups, rows))
    weights = scores.masked_fill_(~visible, -torch.inf).softmax(-1).to(value.dtype).flatten(2, 3)
    return (weights @ value).unflatten(2, (groups, rows)).flatten(1, 2).transpose(1, 2)


def _flash(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether torch's flash kernel takes these tensors and is not switched off."""
    if not query.is_cuda or query.shape[3] % 8:
        return False
    params = torch.backends.cuda.SDPAParams(query, key, value, None, 0.0, False, True)
    return torch.backends.cuda.can_use_flash_attention(params)


def _efficient(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether torch's memory-efficient kernel takes these and is not switched off."""
    if not query.is_cuda:
        return False
    params = torch.backends.cuda.SDPAParams(query, key, value, None, 0.0, False, False)
    return torch.backends.cuda.can_use_efficient_attention(params)
