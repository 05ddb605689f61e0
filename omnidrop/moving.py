"""From the host's memory to a device without stopping the host."""

from __future__ import annotations

import torch


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device; the host does not wait for work that is queued there.

    PyTorch copies from ordinary memory to a GPU only once the GPU has done all that was asked of it
    before; from pinned memory the copy is queued like any other work.

    Parameters
    ----------
    tensor : Tensor
        On any device. A small one: it is copied into pinned memory first.
    device : torch.device
    """
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
