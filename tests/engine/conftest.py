"""A tiny model and ready features for the engine's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from omnidrop.engine.encode import Features
from omnidrop.engine.session import Model, load
from omnidrop.models.loading import LoadOptions
from omnidrop.models.qwen2_5_omni.tiny import tiny_thinker


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_thinker(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def model(folder: Path) -> Model:
    return load(LoadOptions(model=str(folder), device="cpu", dtype="float32", offline=True))


def make_features(
    grid: tuple[int, int, int] | None = (4, 8, 6), mel_frames: int = 410, seed: int = 0
) -> Features:
    generator = torch.Generator().manual_seed(seed)
    patches = None
    if grid is not None:
        patches = torch.randn(grid[0] * grid[1] * grid[2], 3 * 2 * 14 * 14, generator=generator)
    mel = torch.randn(128, mel_frames, generator=generator) if mel_frames else None
    return Features(patches=patches, grid=grid, second_per_grid=1.0 if grid else None, mel=mel)


@pytest.fixture(scope="session")
def features() -> Features:
    return make_features()
