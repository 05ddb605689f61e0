"""Small audio selectors, made up and saved, for tests of OmniSIFT."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch

from omnidrop.pruning.parts import selector
from omnidrop.pruning.parts.trained import Network

_KEPT = tempfile.TemporaryDirectory(prefix="omnidrop-selector-")  # until the tests end


def made_up(width: int = 8, hidden: int = 6, heads: int = 2) -> selector.Selector:
    """A selector with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return selector.Selector(selector.Shape(width, hidden, heads))


def write_selector(
    folder: Path, width: int = 8, *, decoder: str = "frozen", **known: str
) -> selector.Selector:
    """Save a selector with random weights, and return it as it is read back."""
    made = made_up(width)
    network = Network(made, asdict(made.shape), **known, training={"decoder": decoder})
    selector.KIND.save(folder, network)
    return selector.KIND.load(folder).module


@cache
def selector_folder(width: int = 8) -> str:
    """Return the folder of a selector for embeddings of a width."""
    folder = Path(_KEPT.name) / str(width)
    write_selector(folder, width)
    return str(folder)
