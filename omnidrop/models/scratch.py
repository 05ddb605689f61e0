"""One reused buffer for matrices that are widened when they are used."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor


class Scratch:
    """A buffer that grows to the largest matrix asked for; each thread has its own.

    Parameters
    ----------
    dtype : torch.dtype
        Of what is held.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._own = threading.local()

    def __deepcopy__(self, memo: object) -> Scratch:
        return Scratch(self.dtype)

    def take(self, shape: Sequence[int]) -> Tensor:
        """Return a tensor of this shape; what it held is lost, as is what was taken before."""
        held: Tensor | None = getattr(self._own, "held", None)
        size = prod(shape)
        if held is None or held.numel() < size:
            self._own.held = None  # freed before more is taken
            with torch.inference_mode(False):
                held = torch.empty(size, dtype=self.dtype)
            self._own.held = held
        return held[:size].view(*shape)
