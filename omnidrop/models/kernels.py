"""Which attention kernel a call gets on a GPU: one rule, call by call.

On Hopper and Blackwell torch's first choice is cuDNN's attention. It builds an execution plan for
every pair of (queries, keys) that it has not seen, which takes about 35 ms; once tokens are pruned
every layer has a length of its own, so a decoding step builds as many plans as there are layers,
and the next step builds them all again. Flash attention builds nothing. On an H100 cuDNN is the
faster of the two for many rows: 6.1 ms a layer against 9.1 for 20 000 rows and 28 heads, and that
difference grows with the square of the rows. So a plan pays where all layers share it and the rows
are many (`PLANNED_FROM`), and nowhere else: not for a single row or a question's rows over keys
that are there, not for a pruned prompt, not for the windows of a tower.

The choice is made by calling the kernel, as torch's own `CausalBias` does, not by
`torch.nn.attention.sdpa_kernel`: that one sets flags of the whole process, which two threads would
leave each other. Flags that a user sets are respected: a kernel that is switched off isn't taken.

Only torch's `scaled_dot_product_attention` ever takes cuDNN's. Packages of flash attention
(``flash_attention_2``, ``flash_attention_3``) are called as they are, and so is everything that is
not on CUDA.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

#: Rows from which a plan of cuDNN's (about 35 ms, once) is earned back by 27 layers of a prefill.
PLANNED_FROM = 16_384

#: `custom_mask_type` of torch's memory-efficient kernel: none, and causal aligned to the end.
_UNMASKED, _CAUSAL_TO_THE_END = 0, 2


class Choice(Enum):
    """Who chooses the kernel of a call.

    Attributes
    ----------
    TORCH
        torch does, in its own order; cuDNN's attention is the first of it on new GPUs.
    PLANLESS
        One that builds nothing for the shapes: flash, else memory-efficient, else plain products.
    """

    TORCH = "torch"
    PLANLESS = "planless"


def choose(device: torch.device, rows: int, keys: int, *, shared: bool) -> Choice:
    """Say who chooses the kernel of a call of `scaled_dot_product_attention`.

    Parameters
    ----------
    device : torch.device
    rows, keys : int
        Of one head.
    shared : bool
        Whether other layers make calls of the same sizes.
    """
    if device.type != "cuda" or (shared and rows == keys and rows >= PLANNED_FROM):
        return Choice.TORCH
    return Choice.PLANLESS


def planless(query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scaling: float) -> Tensor:
    """Attend by a kernel that builds no plan.

    Parameters
    ----------
    query : Tensor, (b, heads, n, head_dim)
    key, value : Tensor, (b, kv_heads, s, head_dim)
        The heads of queries are a multiple of theirs.
    causal : bool
        The last row sees all keys, the one before it all but the last, and so on.
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
    seen = torch.ones(rows, keys, dtype=torch.bool, device=query.device)
    return masked(query, key, value, seen.tril(keys - rows) if causal else seen, scaling)


class Filled(NamedTuple):
    """How much of a buffer of fixed size counts, as only the device knows it.

    Attributes
    ----------
    used : Tensor, (1,) int32
        Tokens that count, from the first.
    row : Tensor, (2,) int32
        0 and 1: where one row begins and ends.
    room : Tensor, (2,) int32
        0 and the size of the buffer.
    """

    used: Tensor
    row: Tensor
    room: Tensor


def over_filled(
    query: Tensor, key: Tensor, value: Tensor, filled: Filled, *, scaling: float
) -> Tensor:
    """Attend from one row over the part of a buffer that counts; nothing is asked of the host.

    Parameters
    ----------
    query : Tensor, (1, heads, 1, head_dim)
    key, value : Tensor, (1, kv_heads, capacity, head_dim)
        Finite throughout.
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
    seen = torch.arange(key.shape[2], device=key.device) < filled.used
    return masked(query, key, value, seen[None], scaling)


def masked(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scaling: float) -> Tensor:
    """Attend by plain products; heads that share keys stand under each other.

    Parameters
    ----------
    query : Tensor, (b, heads, n, head_dim)
    key, value : Tensor, (b, kv_heads, s, head_dim)
    seen : Tensor, (n, s) bool
        True where a row sees a key.
    scaling : float

    Returns
    -------
    Tensor, (b, n, heads, head_dim)
    """
    kv_heads, rows = key.shape[1], query.shape[2]
    groups = query.shape[1] // kv_heads
    # Scaled before the product: unscaled ones may leave the range of float16.
    packed = (query * scaling).unflatten(1, (kv_heads, groups)).flatten(2, 3)
    scores = (packed @ key.transpose(2, 3)).float().unflatten(2, (groups, rows))
    weights = scores.masked_fill_(~seen, -torch.inf).softmax(-1).to(value.dtype).flatten(2, 3)
    return (weights @ value).unflatten(2, (groups, rows)).flatten(1, 2).transpose(1, 2)


def _flash(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Say whether torch's flash kernel takes these, and the user lets it."""
    if not query.is_cuda or query.shape[3] % 8:
        return False
    params = torch.backends.cuda.SDPAParams(query, key, value, None, 0.0, False, True)
    return torch.backends.cuda.can_use_flash_attention(params)


def _efficient(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Say whether torch's memory-efficient kernel takes these, and the user lets it."""
    if not query.is_cuda:
        return False
    params = torch.backends.cuda.SDPAParams(query, key, value, None, 0.0, False, False)
    return torch.backends.cuda.can_use_efficient_attention(params)
