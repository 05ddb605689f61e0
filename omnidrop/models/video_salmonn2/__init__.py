"""video-SALMONN 2+: Qwen2.5-VL's decoder and vision encoder, and an audio encoder of its own.

`FAMILY` is what the rest of the package knows of it; transformers is imported when it is used.
`template` has the chat, the order of tokens, their positions and the audio tokens per second;
`encoders` the audio encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnidrop.models import thinker_files
from omnidrop.recommended import Recommended
from omnidrop.shapes import Shapes, TextShape, VisionShape

if TYPE_CHECKING:
    from omnidrop.clip.specs import AudioSpec, VideoSpec
    from omnidrop.models.adapter import Adapter, TextCodec
    from omnidrop.models.codec import Codec
    from omnidrop.models.family import LoadRequest, Template


def _published(text: TextShape) -> Shapes:
    from omnidrop.models.video_salmonn2.sizes import AudioConfig, audio_shape

    vision = VisionShape(32, 1280, 3420, 16, 14, 2, 2, 112, (7, 15, 23, 31), text.hidden)
    return Shapes(text, vision, audio_shape(AudioConfig(output=text.hidden)))


@dataclass(frozen=True)
class VideoSalmonn2:
    """The family; see `omnidrop.models.family.Family`."""

    name: str = "video-SALMONN 2+"
    #: A plain Qwen2.5-VL has the same; it is told apart by its missing audio encoder.
    model_types: tuple[str, ...] = ("qwen2_5_vl",)
    aliases: Mapping[str, str] = field(
        default_factory=lambda: {
            "salmonn2-3b": "tsinghua-ee/video-SALMONN2_plus_3B_full",
            "salmonn2-7b": "tsinghua-ee/video-SALMONN2_plus_7B_full",
        }
    )
    #: Sizes of the files on the hub are not known here.
    downloads: Mapping[str, int] = field(default_factory=dict)
    #: None was measured.
    recommended: Mapping[str, Recommended] = field(default_factory=dict)
    #: A buffer that is stored with the weights and not used.
    unused_weights: tuple[str, ...] = ("audio.qformer.bert.embeddings.position_ids",)
    #: See `template`.
    conventions: tuple[str, ...] = ("published", "trained")

    @property
    def published(self) -> Mapping[str, Shapes]:
        """Sizes by hub name."""
        small, large = self.aliases.values()
        return {
            small: _published(TextShape(36, 2048, 11008, 16, 2, 128, 151_936, tied=True)),
            large: _published(TextShape(28, 3584, 18944, 28, 4, 128, 152_064)),
        }

    def missing_part(self, config: Mapping[str, Any]) -> str | None:
        if not isinstance(config.get("audio_config"), Mapping):
            return "audio_config, so it is a Qwen2.5-VL, which does not hear"
        if not isinstance(config.get("vision_config"), Mapping):
            return "vision_config"
        # Older versions of transformers wrote the decoder's sizes beside the other parts.
        if not isinstance(config.get("text_config", config), Mapping):
            return "text_config"
        return None if "hidden_size" in config.get("text_config", config) else "hidden_size"

    def stored_dtype(self, config: Mapping[str, Any]) -> str | None:
        return thinker_files.stored_dtype(config)

    def quantised(self, weight: str) -> bool:
        return thinker_files.decoder_linear(weight)

    def shapes(self, config: Mapping[str, Any]) -> Shapes:
        from omnidrop.models.video_salmonn2.sizes import shapes

        return shapes(_parsed(config))

    def media(
        self, folder: Path | None, config: Mapping[str, Any] | None
    ) -> tuple[VideoSpec, AudioSpec]:
        from omnidrop.models.video_salmonn2.sizes import media_specs

        return media_specs(folder, None if config is None else _parsed(config))

    def template(self, config: Mapping[str, Any] | None, codec: TextCodec | None) -> Template:
        from omnidrop.models.video_salmonn2.template import template

        return template(codec, None if config is None else _parsed(config), self.name)

    def codec(self, folder: Path) -> Codec | None:
        from omnidrop.models.codec import read_codec

        return read_codec(folder)

    def write_tiny(self, folder: Path) -> Path:
        from omnidrop.models.video_salmonn2.tiny import tiny_checkpoint

        return tiny_checkpoint(folder)

    def check(self, folder: Path, config: Mapping[str, Any]) -> None:
        from omnidrop.models.checking import check_sections, check_vocabulary, check_weights
        from omnidrop.models.video_salmonn2.adapter import THINKER
        from omnidrop.models.video_salmonn2.encoders import PREFIX, check_audio
        from omnidrop.models.video_salmonn2.sizes import audio_config

        parsed, text = _parsed(config), self.shapes(config).text
        rope = parsed.text_config.rope_parameters or {}
        check_sections(rope.get("mrope_section"), text.head_dim, folder)
        check_weights(THINKER, parsed, folder, (PREFIX,))
        check_audio(folder, audio_config(parsed))
        check_vocabulary(self.codec(folder), text.vocab, folder)

    def load(self, request: LoadRequest) -> Adapter:
        from omnidrop.models.from_transformers import load
        from omnidrop.models.video_salmonn2.adapter import THINKER, SalmonnAdapter
        from omnidrop.models.video_salmonn2.encoders import PREFIX, load_audio
        from omnidrop.models.video_salmonn2.sizes import audio_config

        config = _parsed(request.config)
        thinker, tokenizer = load(THINKER, config, request, (PREFIX,), quantised=self.quantised)
        audio = load_audio(
            request.folder,
            audio_config(config),
            request.device,
            request.dtype,
            mapped=request.stored not in (None, request.dtype),
        )
        return SalmonnAdapter(
            thinker,
            tokenizer,
            audio,
            convention=request.positions or self.conventions[0],
            name=request.name,
            folder=request.folder,
            demo=request.demo,
            quantization=request.quantize,
            parameters=request.parameters,
        )


def _parsed(config: Mapping[str, Any]) -> Any:
    """Return transformers' config, with the audio encoder's part as it is stored."""
    from transformers import Qwen2_5_VLConfig

    return Qwen2_5_VLConfig.from_dict(dict(config))


FAMILY = VideoSalmonn2()
