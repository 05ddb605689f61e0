"""The dtype of the matrix products in training."""

from __future__ import annotations

import torch

from omnidrop.models.loading import quick_bfloat16


def working_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16, or float32 on a CPU without bfloat16 arithmetic, where it is slower."""
    slow = device.type == "cpu" and not quick_bfloat16()
    return torch.float32 if slow else torch.bfloat16
