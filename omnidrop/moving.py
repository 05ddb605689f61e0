"""Copies tensors from the host to a device without synchronising; every package may use it."""

from __future__ import annotations

import torch


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device, without waiting for the device's queued work.

    A copy from pageable memory to a GPU blocks the host until the GPU has finished its queue; a
    copy from pinned memory is queued like any other work.

    Parameters
    ----------
    tensor : Tensor
        A small tensor on any device; one on the CPU is first copied into pinned memory.
    device : torch.device
    """
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor if tensor.device == device else tensor.to(device)
