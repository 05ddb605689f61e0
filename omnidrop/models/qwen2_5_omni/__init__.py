"""Qwen2.5-Omni: decoder, encoders, prompt template and sizes.

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
from omnidrop.shapes import AudioShape, Shapes, TextShape, VisionShape

if TYPE_CHECKING:
    from omnidrop.clip.specs import AudioSpec, VideoSpec
    from omnidrop.models.adapter import Adapter, TextCodec
    from omnidrop.models.codec import Codec
    from omnidrop.models.family import LoadRequest, Template


def _published(text: TextShape) -> Shapes:
    vision = VisionShape(32, 1280, 3420, 16, 14, 2, 2, 112, (7, 15, 23, 31), text.hidden)
    return Shapes(text, vision, AudioShape(32, 1280, 5120, 20, 128, 200, text.hidden))


def _paper(size: str, accuracy: str = "") -> Recommended:
    """Return the schedule that OmniDrop's paper prints for a model at its main setting, 30 %."""
    return Recommended(
        method="omnidrop",
        budget=0.3,
        source=f"the paper's schedule (arXiv 2605.14458){accuracy}",
        presets={0.3: f"paper-{size}-30", 0.2: f"paper-{size}-20"},
    )


@dataclass(frozen=True)
class QwenOmni:
    """The family; see `omnidrop.models.family.Family`."""

    name: str = "Qwen2.5-Omni"
    model_types: tuple[str, ...] = ("qwen2_5_omni", "qwen2_5_omni_thinker")
    aliases: Mapping[str, str] = field(
        default_factory=lambda: {"3b": "Qwen/Qwen2.5-Omni-3B", "7b": "Qwen/Qwen2.5-Omni-7B"}
    )
    published: Mapping[str, Shapes] = field(
        default_factory=lambda: {
            "Qwen/Qwen2.5-Omni-3B": _published(TextShape(36, 2048, 11008, 16, 2, 128, 151_936)),
            "Qwen/Qwen2.5-Omni-7B": _published(TextShape(28, 3584, 18944, 28, 4, 128, 152_064)),
        }
    )
    #: As the hub lists the files, the parts that speak included.
    downloads: Mapping[str, int] = field(
        default_factory=lambda: {
            "Qwen/Qwen2.5-Omni-3B": 12_000_000_000,
            "Qwen/Qwen2.5-Omni-7B": 22_400_000_000,
        }
    )
    #: Parts of a checkpoint that speak.
    unused_weights: tuple[str, ...] = ("talker.", "token2wav.")
    conventions: tuple[str, ...] = ()
    recommended: Mapping[str, Recommended] = field(
        default_factory=lambda: {
            "demo": Recommended(
                method="omnidrop-auto",
                budget=0.3,
                source="measured on AVSynth: 95.7 % right, 96.5 % unpruned",
            ),
            "Qwen/Qwen2.5-Omni-3B": _paper("3b"),
            "Qwen/Qwen2.5-Omni-7B": _paper(
                "7b", ": WorldSense 46.6, AVUT 64.0; 46.9 and 65.2 unpruned"
            ),
        }
    )

    def recommended_by(self, config: Mapping[str, Any]) -> Recommended | None:
        from omnidrop.models import sync_rope

        sync = sync_rope.is_sync(thinker_files.thinker_config(config))
        return sync_rope.RECOMMENDED if sync else None

    def missing_part(self, config: Mapping[str, Any]) -> str | None:
        return thinker_files.missing_part(config)

    def stored_dtype(self, config: Mapping[str, Any]) -> str | None:
        return thinker_files.stored_dtype(config)

    def quantised(self, weight: str) -> bool:
        return thinker_files.decoder_linear(weight)

    def shapes(self, config: Mapping[str, Any]) -> Shapes:
        from omnidrop.models.qwen2_5_omni.sizes import shapes

        return shapes(_parsed(config))

    def media(
        self, folder: Path | None, config: Mapping[str, Any] | None
    ) -> tuple[VideoSpec, AudioSpec]:
        from omnidrop.clip.specs import AudioSpec, VideoSpec
        from omnidrop.models.qwen2_5_omni.sizes import media_specs

        return (
            (VideoSpec(), AudioSpec()) if config is None else media_specs(folder, _parsed(config))
        )

    def template(self, config: Mapping[str, Any] | None, codec: TextCodec | None) -> Template:
        from omnidrop.models.qwen2_5_omni.template import template

        return template(codec, None if config is None else _parsed(config), self.name)

    def codec(self, folder: Path) -> Codec | None:
        from omnidrop.models.codec import read_codec

        return read_codec(folder)

    def write_tiny(self, folder: Path) -> Path:
        from omnidrop.models.qwen2_5_omni.tiny import tiny_thinker

        return tiny_thinker(folder)

    def check(self, folder: Path, config: Mapping[str, Any]) -> None:
        from omnidrop.models import sync_rope
        from omnidrop.models.checking import check_sections, check_vocabulary, check_weights
        from omnidrop.models.qwen2_5_omni.adapter import THINKER

        parsed, text = _parsed(config), self.shapes(config).text
        rope = parsed.text_config.rope_parameters or {}
        axes = 4 if sync_rope.is_sync(thinker_files.thinker_config(config)) else 3
        check_sections(rope.get("mrope_section"), text.head_dim, folder, axes)
        check_weights(THINKER, parsed, folder, self.unused_weights)
        check_vocabulary(self.codec(folder), text.vocab, folder)

    def load(self, request: LoadRequest) -> Adapter:
        from omnidrop.models import sync_rope
        from omnidrop.models.from_transformers import load
        from omnidrop.models.qwen2_5_omni.adapter import THINKER, QwenOmniAdapter

        thinker, tokenizer = load(
            THINKER,
            _parsed(request.config),
            request,
            self.unused_weights,
            quantised=self.quantised,
        )
        if sync_rope.is_sync(thinker_files.thinker_config(request.config)):
            sync_rope.install(thinker)
        return QwenOmniAdapter(
            thinker,
            tokenizer,
            name=request.name,
            folder=request.folder,
            demo=request.demo,
            quantization=request.quantize,
            parameters=request.parameters,
        )


def _parsed(config: Mapping[str, Any]) -> Any:
    from transformers import Qwen2_5OmniThinkerConfig

    from omnidrop.models.sync_rope import readable

    return Qwen2_5OmniThinkerConfig.from_dict(readable(thinker_files.thinker_config(config)))


FAMILY = QwenOmni()
