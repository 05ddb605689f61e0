"""OmniDrop's model and transformers' over one checkpoint, on any device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import tiny_thinker

import omnidrop
from benchmarks.gpu_parts.shapes import SHAPES, make_features
from omnidrop.engine.encode import Features
from omnidrop.models.qwen2_5_omni import THINKER


@dataclass(frozen=True)
class Pair:
    """Both over the same weights; no token ends an answer."""

    model: omnidrop.Model
    thinker: Any

    @classmethod
    def load(cls, folder: Path, device: str, dtype: str = "float32") -> Pair:
        """Load both from a folder."""
        model = omnidrop.load(str(folder), device=device, dtype=dtype, offline=True)
        model.adapter.stop_ids = frozenset()
        thinker = THINKER.from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
        thinker.generation_config.eos_token_id = None
        return cls(model, thinker.to(device).eval())


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thinker of 8 layers, 128 wide, in float32."""
    return tiny_thinker(tmp_path_factory.mktemp("gpu"), layers=8, hidden=128)


@pytest.fixture(scope="session")
def clips() -> list[Features]:
    """Ready features of clips of 200 to 800 AV tokens."""
    return [make_features(SHAPES["tiny"], n, torch.device("cpu")) for n in (200, 400, 800)]
