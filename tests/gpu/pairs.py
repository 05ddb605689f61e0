"""Loads OmniDrop's and transformers' model from one checkpoint, on any device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import omnidrop
from omnidrop.models.qwen2_5_omni.adapter import THINKER


@dataclass(frozen=True)
class Pair:
    """Both models with the same weights; no token ends an answer."""

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
