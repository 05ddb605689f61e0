"""The `Adapter` of Qwen2.5-Omni's thinker."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as reference

from omnidrop.clip.specs import AudioSpec, VideoSpec
from omnidrop.models.adapter import Embeds, TextCodec
from omnidrop.models.qwen2_5_omni.encoders import AudioTower, VisionTower
from omnidrop.models.qwen2_5_omni.sizes import NAME, media_specs, shapes
from omnidrop.models.qwen2_5_omni.template import QwenOmniTemplate, template
from omnidrop.models.thinker import ThinkerAdapter
from omnidrop.shapes import Shapes

THINKER = reference.Qwen2_5OmniThinkerForConditionalGeneration


class QwenOmniAdapter(ThinkerAdapter):
    """Adapter of a loaded `Qwen2_5OmniThinkerForConditionalGeneration`; see `ThinkerAdapter`."""

    family: ClassVar[str] = NAME

    def _towers(self, holder: Any) -> tuple[VisionTower, AudioTower]:
        return VisionTower(holder.visual), AudioTower(holder.audio_tower)

    def _last_projections(self, holder: Any) -> tuple[torch.Tensor, ...]:
        return holder.audio_tower.proj.weight, holder.visual.merger.mlp[-1].weight

    def _template(self, codec: TextCodec, name: str) -> QwenOmniTemplate:
        return template(codec, self._thinker.config, name)

    def _media_specs(self, folder: Path | None) -> tuple[VideoSpec, AudioSpec]:
        return media_specs(folder, self._thinker.config)

    def _shapes(self) -> Shapes:
        return shapes(self._thinker.config)

    def encode_video(
        self, patches: torch.Tensor, grid: tuple[int, int, int], *, attention: bool = False
    ) -> Embeds:
        embeds, received = self._vision(patches, grid, attention=attention)
        return Embeds((embeds,), received)

    def encode_audio(self, mel: torch.Tensor, *, attention: bool = False) -> Embeds:
        embeds, received = self._audio(mel, attention=attention)
        return Embeds((embeds,), received)
