"""Refiners with random weights, for tests of what needs one."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

from omnidrop.pruning.parts import refiner
from omnidrop.pruning.parts.trained import Network

_KEPT = tempfile.TemporaryDirectory(prefix="omnidrop-refiner-")  # until the tests end


def made_up(width: int = 8, **sizes: Any) -> refiner.Refiner:
    """A refiner with random weights, biases and norms included."""
    usual = {"inner": 12, "heads": 2, "kv_heads": 1, "head_dim": 8, "layers": 2}
    shape = refiner.Shape(width, **{**usual, "sections": (1, 1, 1, 1), **sizes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = refiner.Refiner(shape)
        for weight in made.parameters():
            torch.nn.init.normal_(weight, 1.0 if weight.ndim == 1 else 0.0, 0.4)
    return made.eval()


def write_refiner(
    folder: Path, width: int = 8, *, decoder: str = "frozen", **known: str
) -> refiner.Refiner:
    """Save a refiner with random weights, and return it as it is read back."""
    made = made_up(width)
    network = Network(made, asdict(made.shape), **known, training={"decoder": decoder})
    refiner.KIND.save(folder, network)
    return refiner.KIND.load(folder).module


@cache
def refiner_folder(width: int = 8) -> str:
    """Return the folder of a refiner for embeddings of a width."""
    folder = Path(_KEPT.name) / str(width)
    write_refiner(folder, width)
    return str(folder)
