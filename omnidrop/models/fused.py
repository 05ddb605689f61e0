"""Fused kernels for RMS norm, gated activation and rotary embedding: one pass over memory each.

As separate elementwise operations of PyTorch each takes two to six passes over the states, in
float32, and together they cost up to a third of the time of the matrix products on a GPU. On CUDA
the norm is PyTorch's fused one; the other two are small Triton kernels, if Triton is installed and
can build them. Otherwise, and always on a CPU, plain operations run, bit for bit equal to those of
transformers.

The kernels compute in float32 and round once, while the plain operations round after each step; in
16 bits the kernels are closer to the exact value. All can be captured in a CUDA graph once they
have run for the same dtype.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Kernels(NamedTuple):
    """The Triton kernels, or why they are not available.

    Attributes
    ----------
    module : module or None
        `omnidrop.models.fused_triton`.
    reason : str
        Why `module` is None; else "".
    """

    module: ModuleType | None
    reason: str


@cache
def triton_kernels() -> Kernels:
    """Build and run the Triton kernels once on the current CUDA device.

    Triton may be missing (PyTorch's CUDA builds for Linux include it), the device may be too old,
    or the C compiler that Triton needs may be missing: then `reason` says so.
    """
    try:
        from omnidrop.models import fused_triton as module
    except ImportError as error:
        return Kernels(None, f"Triton cannot be imported ({error})")
    try:
        module.silu_mul(*torch.ones(2, 1, 8, device="cuda").unbind())
    except Exception as error:  # from a compiler or driver; the plain operations replace them
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return Kernels(None, f"Triton cannot build a kernel here ({first[:200]})")
    return Kernels(module, "")


def _kernels(*tensors: Tensor) -> Any:
    """Return the module of kernels if all tensors are on CUDA and the kernels work; else None."""
    if all(tensor.is_cuda for tensor in tensors):
        return triton_kernels().module
    return None


def rms_norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide rows by their root mean square, and multiply by a weight per channel.

    Parameters
    ----------
    states : Tensor, (..., n)
    weight : Tensor, (n,)
    eps : float
        Added to the mean square.

    Returns
    -------
    Tensor, (..., n)
        In the dtype of the states.
    """
    if states.is_cuda and states.dtype == weight.dtype:
        return F.rms_norm(states, weight.shape, weight, eps)
    wide = states.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(states.dtype)


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """Compute ``silu(gate) * up`` in place, in `gate`.

    Parameters
    ----------
    gate, up : Tensor, (..., n)
        Of the same shape and dtype; rows may be slices of wider ones. `gate` is overwritten.

    Returns
    -------
    Tensor, (..., n)
        `gate`.
    """
    kernels = _kernels(gate, up)
    if kernels is not None and kernels.takes_rows(gate, up):
        kernels.silu_mul(gate, up)
        return gate
    return F.silu(gate, inplace=True).mul_(up)


def rotate(states: Tensor, cos: Tensor, sin: Tensor, *, inplace: bool = False) -> Tensor:
    """Apply rotary embedding to queries or keys.

    ``states * cos + rotate_half(states) * sin`` in the dtype of `cos`, without making the tensor
    `rotate_half(states)`.

    Parameters
    ----------
    states : Tensor, (..., head_dim)
    cos, sin : Tensor, (..., head_dim)
        In the dtype of the states or in float32; broadcast against them.
    inplace : bool
        Overwrite `states` with the result.

    Returns
    -------
    Tensor, (..., head_dim)
        In the dtype and memory layout of the states: `states` itself if in place, else new.
    """
    kernels = _kernels(states, cos, sin)
    if kernels is not None and kernels.takes_heads(states):
        out = states if inplace else torch.empty_like(states)
        kernels.rotate(states, cos, sin, out)
        return out
    half = states.shape[-1] // 2
    wide = states.to(cos.dtype)
    turned = wide * cos
    turned[..., :half] -= wide[..., half:] * sin[..., :half]
    turned[..., half:] += wide[..., :half] * sin[..., half:]
    return states.copy_(turned) if inplace else turned.to(states.dtype)
