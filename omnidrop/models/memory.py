"""Estimates the memory of weights, measures a device's free memory, reports out-of-memory errors.

The weights are counted from the headers of the checkpoint's files, before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from omnidrop.errors import MemoryShortError

#: Share of the free memory that must remain after the weights, for everything else.
HEADROOM = 0.05

#: Phrases in the message of a plain RuntimeError that a library raises when memory runs out.
WORDINGS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "cublas_status_alloc_failed",
    "cuda_error_out_of_memory",
)


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory that loading a model takes.

    Attributes
    ----------
    host, device : int
        Bytes of weights in the host's memory and in a device's own memory.
    host_free, device_free : int or None
        Bytes available there; None if unknown, or if there is no such device.
    parameters : int
        Number of parameters in the parts that are loaded.
    detail : str
        One line for the user.
    """

    host: int
    device: int
    host_free: int | None
    device_free: int | None
    parameters: int
    detail: str

    @property
    def fits(self) -> bool:
        """Whether the weights fit with some memory to spare."""
        return all(
            free is None or need <= free * (1 - HEADROOM)
            for need, free in ((self.host, self.host_free), (self.device, self.device_free))
        )


def gigabytes(count: int | float) -> str:
    """Show bytes as gigabytes (10⁹)."""
    return f"{count / 1e9:.1f} GB" if count >= 5e7 else f"{count / 1e6:.1f} MB"


def device_memory_free(device: torch.device) -> int | None:
    """Bytes free in a device's own memory; None for the CPU and for shared memory."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free)


@contextmanager
def out_of_memory(hint: str) -> Iterator[None]:
    """Turn every kind of out-of-memory error into `MemoryShortError`.

    Parameters
    ----------
    hint : str
        The remedy.

    Raises
    ------
    MemoryShortError
        In place of `MemoryError`, `torch.OutOfMemoryError`, and RuntimeErrors about memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        where = _where(error)
        if where is None:
            raise
        raise MemoryShortError(f"The {where} ran out of memory.", hint=hint) from error


def _where(error: BaseException) -> str | None:
    """Return which memory ran out ("GPU" or "machine"), or None if the error has another cause."""
    said = str(error).lower()
    if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not any(
        wording in said for wording in WORDINGS
    ):
        return None
    graphics = isinstance(error, torch.OutOfMemoryError) or "cuda" in said or "mps" in said
    return "GPU" if graphics else "machine"
