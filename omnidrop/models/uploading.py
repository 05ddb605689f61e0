"""Copies rows from the host to a GPU while the GPU computes on earlier rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Pinned buffers: one is filled while another is copied from.
BUFFERS = 2


@dataclass
class _Buffer:
    """Pinned memory, and the event that marks the end of its last copy."""

    held: Tensor
    copied: torch.cuda.Event


class Upload:
    """Copies rows to a device; to a CUDA device through pinned memory, on a separate stream.

    The host converts rows to the device's dtype, which halves the bytes to copy, and does not wait
    for the device. So the next rows are copied while the device computes on the last ones.

    Parameters
    ----------
    device : torch.device
    dtype : torch.dtype
        Dtype of the rows on the device.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._buffers: list[_Buffer] = []
        self._stream: torch.cuda.Stream | None = None

    def send(self, rows: Tensor) -> Tensor:
        """Return `rows`, (n, ...), on the device; the current stream waits for them, not the host.

        Parameters
        ----------
        rows : Tensor
            On any device, of any dtype; the caller may overwrite them after this returns.
        """
        if self.device.type != "cuda" or rows.device.type != "cpu":
            return rows.to(self.device, self.dtype)
        stream = self._stream = self._stream or torch.cuda.Stream(self.device)
        buffer = self._free_buffer(rows)
        held = buffer.held[: rows.numel()].view(rows.shape)
        held.copy_(rows)
        with torch.cuda.stream(stream):
            there = torch.empty(rows.shape, dtype=self.dtype, device=self.device)
            there.copy_(held, non_blocking=True)
            buffer.copied.record(stream)
        using = torch.cuda.current_stream(self.device)
        using.wait_event(buffer.copied)
        there.record_stream(using)
        return there

    def _free_buffer(self, rows: Tensor) -> _Buffer:
        """Return the least recently used buffer, once its last copy has ended."""
        if len(self._buffers) < BUFFERS:
            buffer = _Buffer(self._pinned(rows.numel()), torch.cuda.Event())
        else:
            buffer = self._buffers.pop(0)
            buffer.copied.synchronize()
            if buffer.held.numel() < rows.numel():
                buffer.held = self._pinned(rows.numel())
        self._buffers.append(buffer)
        return buffer

    def _pinned(self, size: int) -> Tensor:
        return torch.empty(size, dtype=self.dtype, pin_memory=True)
