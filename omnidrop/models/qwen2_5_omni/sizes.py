"""Reads Qwen2.5-Omni's sizes and its requirements on frames and audio from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnidrop.clip.specs import AudioSpec, VideoSpec
from omnidrop.models.config_sizes import text_shape, windowed_vision_shape
from omnidrop.models.preprocessors import read_specs
from omnidrop.shapes import AudioShape, Shapes

NAME = "Qwen2.5-Omni"


def shapes(config: Any) -> Shapes:
    """Return the sizes in a thinker's config (`Qwen2_5OmniThinkerConfig`)."""
    return Shapes(
        text_shape(config.text_config),
        windowed_vision_shape(config.vision_config),
        audio_shape(config.audio_config),
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
