"""Ready features of a made-up clip, for tests that need no media file."""

from __future__ import annotations

from pathlib import Path

import torch

from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model, load
from omnidrop.options import LoadOptions


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


def load_tiny(folder: Path) -> Model:
    """Load a tiny checkpoint on the CPU in float32."""
    return load(LoadOptions(model=str(folder), device="cpu", dtype="float32", offline=True))
