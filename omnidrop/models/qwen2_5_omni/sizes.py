"""Reads Qwen2.5-Omni's sizes and its requirements on frames and audio from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnidrop.clip.specs import AudioSpec, VideoSpec
from omnidrop.models.preprocessors import read_specs
from omnidrop.shapes import AudioShape, Shapes, TextShape, VisionShape

NAME = "Qwen2.5-Omni"


def shapes(config: Any) -> Shapes:
    """Return the sizes in a thinker's config (`Qwen2_5OmniThinkerConfig`)."""
    return Shapes(
        text_shape(config.text_config),
        vision_shape(config.vision_config),
        audio_shape(config.audio_config),
    )


def text_shape(config: Any) -> TextShape:
    """Return the sizes in the decoder's config."""
    heads = int(config.num_attention_heads)
    return TextShape(
        layers=int(config.num_hidden_layers),
        hidden=int(config.hidden_size),
        intermediate=int(config.intermediate_size),
        heads=heads,
        kv_heads=int(config.num_key_value_heads),
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        vocab=int(config.vocab_size),
    )


def vision_shape(config: Any) -> VisionShape:
    """Return the sizes in the vision encoder's config."""
    return VisionShape(
        layers=int(config.depth),
        hidden=int(config.hidden_size),
        intermediate=int(config.intermediate_size),
        heads=int(config.num_heads),
        patch=int(config.patch_size),
        temporal_patch=int(config.temporal_patch_size),
        merge=int(config.spatial_merge_size),
        window=int(config.window_size),
        full_attention=tuple(int(i) for i in config.fullatt_block_indexes),
        output=int(config.out_hidden_size),
    )


def audio_shape(config: Any) -> AudioShape:
    """Return the sizes in the audio encoder's config."""
    return AudioShape(
        layers=int(config.encoder_layers),
        hidden=int(config.d_model),
        intermediate=int(config.encoder_ffn_dim),
        heads=int(config.encoder_attention_heads),
        mel_bins=int(config.num_mel_bins),
        window=2 * int(config.n_window),
        output=int(config.output_dim),
    )


def media_specs(folder: Path | None, config: Any) -> tuple[VideoSpec, AudioSpec]:
    """Return the encoders' requirements on frames and audio.

    Parameters
    ----------
    folder : Path or None
        The checkpoint's, for `omnidrop.models.preprocessors.read_specs`.
    config : Qwen2_5OmniThinkerConfig
    """
    vision = config.vision_config
    usual = VideoSpec(
        patch_size=int(vision.patch_size),
        temporal_patch_size=int(vision.temporal_patch_size),
        merge_size=int(vision.spatial_merge_size),
    )
    return read_specs(folder, usual, AudioSpec(n_mels=int(config.audio_config.num_mel_bins)))
