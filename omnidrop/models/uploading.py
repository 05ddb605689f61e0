"""Rows on their way from the host's memory to a GPU, while it works on those before."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Pinned buffers: one is filled while another is copied from.
BUFFERS = 2


@dataclass
class _Buffer:
    """Pinned memory, and the event after which its last copy has been made."""

    held: Tensor
    copied: torch.cuda.Event


class Upload:
    """Sends rows to a device; to a CUDA device through pinned memory, on a stream of its own.

    The host converts rows to the dtype they will have there, which halves what has to be copied,
    and does not wait for the device's work: a caller that asks for the next rows while the device
    works on the last has them copied meanwhile.

    Parameters
    ----------
    device : torch.device
    dtype : torch.dtype
        Of the rows on the device.
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
            On any device and of any dtype; may be changed as soon as this returns.
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
        """Return the buffer used longest ago, once nothing is copied from it any more."""
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
