"""Checkpoints and progress reports of the training stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Course:
    """Progress of a training stage.

    Attributes
    ----------
    begin, step : step at which this call began, and the current step
    first, last : loss on the same batches before and after; None if the stage was complete already
    """

    begin: int
    step: int
    first: float | None = None
    last: float | None = None

    def __str__(self) -> str:
        if self.first is None or self.last is None:
            return f"complete at step {self.step}"
        return (
            f"steps {self.begin} to {self.step}, loss {self.first:.3f} at first, "
            f"{self.last:.3f} at last"
        )


def read(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Read a checkpoint with its tensors on a device; None if the file does not exist."""
    if not path.exists():
        return None
    return torch.load(path, weights_only=True, map_location=device)


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    tmp = path.with_suffix(".tmp")
    torch.save(state, tmp)
    tmp.replace(path)
