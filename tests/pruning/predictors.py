"""Small audio-to-visual predictors, made up and saved, for tests of ContextGuard."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch

from omnidrop.pruning.parts import a2v
from omnidrop.pruning.parts.trained import Network

_KEPT = tempfile.TemporaryDirectory(prefix="omnidrop-a2v-")  # until the tests end


def write_predictor(folder: Path, width: int = 8, **known: str) -> a2v.Predictor:
    """Save a predictor with random weights, and return it as it is read back."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = a2v.Predictor(a2v.Shape(width, hidden=6, heads=2))
    a2v.KIND.save(folder, Network(made, asdict(made.shape), **known))
    return a2v.KIND.load(folder).module


@cache
def predictor_folder(width: int = 8) -> str:
    """Return the folder of a predictor for embeddings of a width."""
    folder = Path(_KEPT.name) / str(width)
    write_predictor(folder, width)
    return str(folder)
