"""Fixtures of the GPU checks: a tiny checkpoint and precomputed features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.gpu_parts.shapes import SHAPES, make_features
from omnidrop.engine.encode import Features
from omnidrop.models.qwen2_5_omni.tiny import tiny_thinker


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thinker of 8 layers, 128 wide, in float32."""
    return tiny_thinker(tmp_path_factory.mktemp("gpu"), layers=8, hidden=128)


@pytest.fixture(scope="session")
def clips() -> list[Features]:
    """Precomputed features of clips of 200 to 800 AV tokens."""
    return [make_features(SHAPES["tiny"], n, torch.device("cpu")) for n in (200, 400, 800)]
