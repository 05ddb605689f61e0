"""Qwen3-Omni's thinker: decoder of experts, encoders, prompt template and sizes.

`FAMILY` is what the rest of the package knows of it; transformers is imported when it is used.
`template` has the chat, the order of tokens, their positions and the audio tokens per second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnidrop.models import thinker_files
from omnidrop.recommended import Recommended
from omnidrop.shapes import Experts, Shapes, TextShape, VisionShape

if TYPE_CHECKING:
    from omnidrop.clip.specs import AudioSpec, VideoSpec
    from omnidrop.models.adapter import Adapter, TextCodec
    from omnidrop.models.codec import Codec
    from omnidrop.models.family import LoadRequest, Template

_ALIASES = {
    "qwen3-30b": "Qwen/Qwen3-Omni-30B-A3B-Instruct",
    "qwen3-30b-thinking": "Qwen/Qwen3-Omni-30B-A3B-Thinking",
    "qwen3-30b-captioner": "Qwen/Qwen3-Omni-30B-A3B-Captioner",
}


def _published() -> Shapes:
    from omnidrop.models.qwen3_omni.sizes import sized_audio

    return Shapes(
        TextShape(48, 2048, 768, 32, 4, 128, 152_064, experts=Experts(128, 8, 768)),
        VisionShape(27, 1152, 4304, 16, 16, 2, 2, 0, (), 2048, gated=False, planes=4),
        sized_audio(
            layers=32,
            hidden=1280,
            intermediate=5120,
            heads=20,
            mel_bins=128,
            window=800,
            output=2048,
            channels=480,
            chunk=100,
        ),
    )


@dataclass(frozen=True)
class Qwen3Omni:
    """The family; see `omnidrop.models.family.Family`."""

    name: str = "Qwen3-Omni"
    model_types: tuple[str, ...] = ("qwen3_omni_moe", "qwen3_omni_moe_thinker")
    aliases: Mapping[str, str] = field(default_factory=lambda: dict(_ALIASES))
    #: Bytes of the files on the hub, about, the parts that speak included.
    downloads: Mapping[str, int] = field(
        default_factory=lambda: {
            _ALIASES["qwen3-30b"]: 70_500_000_000,
            _ALIASES["qwen3-30b-thinking"]: 63_500_000_000,
            _ALIASES["qwen3-30b-captioner"]: 63_500_000_000,
        }
    )
    recommended: Mapping[str, Recommended] = field(
        default_factory=lambda: {
            _ALIASES["qwen3-30b"]: Recommended(
                method="seats",
                budget=0.3,
                source="SEATS (arXiv 2605.20035) reports on this model; not measured here",
            ),
        }
    )
    #: Parts of a checkpoint that speak.
    unused_weights: tuple[str, ...] = ("talker.", "code2wav.")
    conventions: tuple[str, ...] = ()

    @property
    def published(self) -> Mapping[str, Shapes]:
        """Sizes by hub name; all published models have the same."""
        return dict.fromkeys(_ALIASES.values(), _published())

    def missing_part(self, config: Mapping[str, Any]) -> str | None:
        return thinker_files.missing_part(config)

    def stored_dtype(self, config: Mapping[str, Any]) -> str | None:
        return thinker_files.stored_dtype(config)

    def quantised(self, weight: str) -> bool:
        from omnidrop.models.experts import is_expert

        return thinker_files.decoder_linear(weight) or is_expert(weight)

    def shapes(self, config: Mapping[str, Any]) -> Shapes:
        from omnidrop.models.qwen3_omni.sizes import shapes

        return shapes(_parsed(config))

    def media(
        self, folder: Path | None, config: Mapping[str, Any] | None
    ) -> tuple[VideoSpec, AudioSpec]:
        from omnidrop.models.qwen3_omni.sizes import media_specs

        return media_specs(folder, None if config is None else _parsed(config))

    def template(self, config: Mapping[str, Any] | None, codec: TextCodec | None) -> Template:
        from omnidrop.models.qwen3_omni.template import template

        return template(codec, None if config is None else _parsed(config), self.name)

    def codec(self, folder: Path) -> Codec | None:
        from omnidrop.models.codec import read_codec

        return read_codec(folder)

    def write_tiny(self, folder: Path) -> Path:
        from omnidrop.models.qwen3_omni.tiny import tiny_thinker

        return tiny_thinker(folder)

    def check(self, folder: Path, config: Mapping[str, Any]) -> None:
        from omnidrop.models.checking import (
            check_experts,
            check_sections,
            check_vocabulary,
            check_weights,
        )
        from omnidrop.models.qwen3_omni.adapter import THINKER

        parsed, text = _parsed(config), self.shapes(config).text
        rope = parsed.text_config.rope_parameters or {}
        check_sections(rope.get("mrope_section"), text.head_dim, folder)
        if text.experts is not None:
            check_experts(folder, text.experts.count, self.unused_weights)
        check_weights(THINKER, parsed, folder, self.unused_weights)
        check_vocabulary(self.codec(folder), text.vocab, folder)

    def load(self, request: LoadRequest) -> Adapter:
        from omnidrop.models.from_transformers import load
        from omnidrop.models.qwen3_omni.adapter import BLOCK, THINKER, Qwen3OmniAdapter

        thinker, tokenizer = load(
            THINKER,
            _parsed(request.config),
            request,
            self.unused_weights,
            quantised=self.quantised,
            experts=BLOCK,
        )
        return Qwen3OmniAdapter(
            thinker,
            tokenizer,
            name=request.name,
            folder=request.folder,
            demo=request.demo,
            quantization=request.quantize,
            parameters=request.parameters,
        )


def _parsed(config: Mapping[str, Any]) -> Any:
    from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import (
        Qwen3OmniMoeThinkerConfig,
    )

    return Qwen3OmniMoeThinkerConfig.from_dict(dict(thinker_files.thinker_config(config)))


FAMILY = Qwen3Omni()
