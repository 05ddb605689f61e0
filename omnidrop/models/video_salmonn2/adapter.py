"""The `Adapter` of video-SALMONN 2+: a thinker of transformers with an audio encoder of our own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as reference

from omnidrop.clip.specs import AudioSpec, VideoSpec
from omnidrop.models.adapter import Embeds, TextCodec
from omnidrop.models.thinker import ThinkerAdapter
from omnidrop.models.video_salmonn2.encoders import AudioEncoder, AudioTower
from omnidrop.models.video_salmonn2.sizes import NAME, media_specs, shapes
from omnidrop.models.video_salmonn2.template import SalmonnTemplate, template
from omnidrop.models.windowed_vision import VisionTower
from omnidrop.shapes import Shapes

THINKER = reference.Qwen2_5_VLForConditionalGeneration


class SalmonnAdapter(ThinkerAdapter):
    """Adapter of a loaded `Qwen2_5_VLForConditionalGeneration` with an audio encoder.

    Parameters
    ----------
    thinker : Module
    tokenizer : PreTrainedTokenizerFast
    audio : AudioEncoder
        Becomes the module `audio` of the thinker, as it is named in a checkpoint.
    convention : {"published", "trained"}
        How positions are counted.
    **settings
        As for `ThinkerAdapter`.
    """

    family: ClassVar[str] = NAME

    def __init__(
        self,
        thinker: Any,
        tokenizer: Any,
        audio: AudioEncoder,
        *,
        convention: str = "published",
        **settings: Any,
    ) -> None:
        thinker.audio = audio
        self._convention = convention
        super().__init__(thinker, tokenizer, **settings)
        self.info = replace(self.info, positions=convention)

    def _towers(self, holder: Any) -> tuple[VisionTower, AudioTower]:
        return VisionTower(holder.visual), AudioTower(self._thinker.audio)

    def _last_projections(self, holder: Any) -> tuple[torch.Tensor, ...]:
        return self._thinker.audio.audio_proj.weight, holder.visual.merger.mlp[-1].weight

    def _template(self, codec: TextCodec, name: str) -> SalmonnTemplate:
        return template(codec, self._thinker.config, name, self._convention)

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
