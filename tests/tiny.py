"""Ready features of a made-up clip, for tests that need no media file."""

from __future__ import annotations

import torch

from omnidrop.engine.encode import Features


def make_features(
    grid: tuple[int, int, int] | None = (4, 8, 6), mel_frames: int = 410, seed: int = 0
) -> Features:
    generator = torch.Generator().manual_seed(seed)
    patches = None
    if grid is not None:
        patches = torch.randn(grid[0] * grid[1] * grid[2], 3 * 2 * 14 * 14, generator=generator)
    mel = torch.randn(128, mel_frames, generator=generator) if mel_frames else None
    return Features(patches=patches, grid=grid, second_per_grid=1.0 if grid else None, mel=mel)
