"""A tiny model of each family and ready features, for the engine's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from omnidrop.engine.encode import Features
from omnidrop.engine.session import Model, load
from omnidrop.models.loading import LoadOptions
from omnidrop.models.qwen2_5_omni.tiny import tiny_thinker
from omnidrop.testing.made_up_family import write_checkpoint

#: Everything that asks for `folder`, `model` or `features` runs over each.
FAMILIES = {"qwen2_5_omni": tiny_thinker, "made_up": write_checkpoint}


@pytest.fixture(scope="session", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def model(folder: Path) -> Model:
    return load(LoadOptions(model=str(folder), device="cpu", dtype="float32", offline=True))


def make_features(
    grid: tuple[int, int, int] | None = (4, 8, 6),
    mel_frames: int = 410,
    seed: int = 0,
    model: Model | None = None,
) -> Features:
    """Random features in the sizes that a model asks for; without one, Qwen2.5-Omni's."""
    width, bins = 3 * 2 * 14 * 14, 128
    if model is not None:
        video = model.adapter.video_spec
        width = 3 * video.temporal_patch_size * video.patch_size**2
        bins = model.adapter.audio_spec.n_mels
    generator = torch.Generator().manual_seed(seed)
    patches = None
    if grid is not None:
        patches = torch.randn(grid[0] * grid[1] * grid[2], width, generator=generator)
    mel = torch.randn(bins, mel_frames, generator=generator) if mel_frames else None
    return Features(patches=patches, grid=grid, second_per_grid=1.0 if grid else None, mel=mel)


@pytest.fixture(scope="session")
def features(model: Model) -> Features:
    return make_features(model=model)
