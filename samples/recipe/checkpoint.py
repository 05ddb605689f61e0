"""Checkpoints and progress reports of the training stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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


class Staged(Protocol):
    """A run whose methods are stages."""

    log: Callable[[str], None]


def run_stages(run: Staged, stages: Iterable[str]) -> dict[str, Course]:
    """Run stages in order and log their results; return the results of the training stages."""
    courses = {}
    for stage in stages:
        start = time.perf_counter()
        course = getattr(run, stage)()
        if course is not None:
            courses[stage] = course
        run.log(f"== {stage}: {course or 'done'} ({time.perf_counter() - start:.0f} s)")
    return courses


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
