"""What the families' encoders share: attention received by tokens, and sizes of batches."""

from __future__ import annotations

import torch
from torch import Tensor

from omnidrop.models.memory import has_own_memory, memory_free

#: Share of a GPU's free memory that a batch may take.
BATCH_SHARE = 0.25


def attention_received(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """Return the attention each token of a window receives: mean over heads, sum over queries.

    Parameters
    ----------
    query, key : Tensor, (b, n, heads, head_dim)
    scaling : float

    Returns
    -------
    Tensor, (b, n) float32
    """
    heads = query.shape[2]
    # One head at a time: attention weights of all heads would be the largest tensor here.
    total = torch.zeros(query.shape[:2], dtype=torch.float32, device=query.device)
    for head in range(heads):
        scores = query[:, :, head].float() @ key[:, :, head].float().transpose(1, 2)
        total += (scores * scaling).softmax(-1).sum(1)
    return total / heads


def batch_size(device: torch.device, usual: int, on_gpu: int, size: int) -> int:
    """Return the batch size of an encoder.

    Parameters
    ----------
    device : torch.device
    usual : int
        Batch size on a device without its own memory.
    on_gpu : int
        Largest batch size on a device with its own memory.
    size : int
        Bytes that an item takes there.

    Returns
    -------
    int
        At least 1.
    """
    if not has_own_memory(device):
        return usual
    return max(1, min(on_gpu, int(BATCH_SHARE * memory_free(device)) // size))
