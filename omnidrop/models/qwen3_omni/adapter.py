"""The `Adapter` of Qwen3-Omni's thinker."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as reference

from omnidrop.clip.specs import AudioSpec, VideoSpec
from omnidrop.models.adapter import Embeds, TextCodec, Thinking
from omnidrop.models.experts import SmallBlock
from omnidrop.models.qwen3_omni.encoders import AudioTower, VisionTower
from omnidrop.models.qwen3_omni.sizes import NAME, media_specs, shapes
from omnidrop.models.qwen3_omni.template import (
    END_OF_THOUGHT,
    THINK,
    Qwen3OmniTemplate,
    opens_with_a_thought,
    template,
)
from omnidrop.models.thinker import ThinkerAdapter
from omnidrop.shapes import Shapes

THINKER = reference.Qwen3OmniMoeThinkerForConditionalGeneration
#: Router and experts of one layer.
BLOCK = reference.Qwen3OmniMoeThinkerTextSparseMoeBlock


class Qwen3OmniAdapter(ThinkerAdapter):
    """Adapter of a loaded `Qwen3OmniMoeThinkerForConditionalGeneration`; see `ThinkerAdapter`."""

    family: ClassVar[str] = NAME

    def _towers(self, holder: Any) -> tuple[VisionTower, AudioTower]:
        return VisionTower(holder.visual), AudioTower(holder.audio_tower)

    def _last_projections(self, holder: Any) -> tuple[torch.Tensor, ...]:
        return holder.audio_tower.proj2.weight, holder.visual.merger.mlp[-1].weight

    def _template(self, codec: TextCodec, name: str) -> Qwen3OmniTemplate:
        start, end = codec.id(THINK), codec.id(END_OF_THOUGHT)
        opening: tuple[int | str, ...] = ()
        if start is not None and end is not None:
            opened = opens_with_a_thought(self.folder)
            self.thinking = Thinking(start, end, opened)
            opening = (start, "\n") if opened else ()
        return template(codec, self._thinker.config, name, opening)

    def _media_specs(self, folder: Path | None) -> tuple[VideoSpec, AudioSpec]:
        return media_specs(folder, self._thinker.config)

    def _shapes(self) -> Shapes:
        return shapes(self._thinker.config)

    @staticmethod
    def _norms(attention: Any) -> tuple[Any, Any]:
        return attention.q_norm, attention.k_norm

    def _add_mlp(self, mlp: Any, rows: torch.Tensor, normed: torch.Tensor) -> None:
        if isinstance(mlp, (BLOCK, SmallBlock)):
            rows += mlp(normed)
        else:
            super()._add_mlp(mlp, rows, normed)

    def encode_video(
        self, patches: torch.Tensor, grid: tuple[int, int, int], *, attention: bool = False
    ) -> Embeds:
        embeds: Embeds = self._vision(patches, grid, attention=attention)
        return embeds

    def encode_audio(self, mel: torch.Tensor, *, attention: bool = False) -> Embeds:
        embeds: Embeds = self._audio(mel, attention=attention)
        return embeds
