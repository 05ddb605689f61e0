"""The machine that does the work: its name, and the speed of a large matrix product on it."""

from __future__ import annotations

import platform
import time
from typing import Any

import torch

from omnidrop.engine.timing import synchronize


def machine(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Describe a device: name, dtype, threads, and FLOP/s of a large matrix product."""
    return {
        "device": str(device),
        "name": device_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "matmul": matmul_speed(device, dtype),
    }


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or the architecture of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def matmul_speed(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """Measure how many operations a second a large square matrix product reaches.

    Parameters
    ----------
    device : torch.device
    dtype : torch.dtype
    seconds : float
        About how long to measure, once the size is found.

    Returns
    -------
    float
        FLOP/s: the best of several products. The first of each size is not counted: it also loads
        the kernel and starts the threads.
    """
    size = 256
    while True:
        a = torch.ones(size, size, dtype=dtype, device=device)
        _matmul_seconds(a)
        took = _matmul_seconds(a)
        if took > seconds / 20 or size >= 8192:
            break
        size *= 2
    rounds = max(3, min(50, int(seconds / max(took, 1e-6))))
    return 2 * size**3 / min(took, *(_matmul_seconds(a) for _ in range(rounds)))


def _matmul_seconds(a: torch.Tensor) -> float:
    synchronize(a.device)
    start = time.perf_counter()
    torch.mm(a, a)
    synchronize(a.device)
    return time.perf_counter() - start
