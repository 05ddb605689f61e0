"""Reads Qwen2.5-Omni's sizes and its requirements on frames and audio from a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omnidrop.clip.specs import AudioSpec, VideoSpec
from omnidrop.errors import ModelError
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

    Limits on pixels come from a file about *video*: `video_preprocessor_config.json`, or the
    `video_processor` part of `processor_config.json`, or a `preprocessor_config.json` that does not
    describe an image processor. The hub's `preprocessor_config.json` describes one, so its limits
    are for images, and the reference replaces them by 128·28² and 768·28² for video. Limits larger
    than these are taken as limits for images in any file.

    Parameters
    ----------
    folder : Path or None
    config : Qwen2_5OmniThinkerConfig

    Returns
    -------
    VideoSpec, AudioSpec
    """
    vision, files = config.vision_config, _preprocessors(folder)
    video, general = files["video"], files["general"]
    both = {**general, **video}
    size = video.get("size") or {}
    defaults = VideoSpec()
    lower = size.get("shortest_edge") or video.get("min_pixels") or defaults.min_pixels
    upper = size.get("longest_edge") or video.get("max_pixels") or defaults.max_pixels
    if int(upper) > defaults.max_pixels:
        lower, upper = defaults.min_pixels, defaults.max_pixels
    frames = VideoSpec(
        patch_size=int(vision.patch_size),
        temporal_patch_size=int(vision.temporal_patch_size),
        merge_size=int(vision.spatial_merge_size),
        min_pixels=int(lower),
        max_pixels=int(upper),
        mean=tuple(both.get("image_mean") or defaults.mean),
        std=tuple(both.get("image_std") or defaults.std),
    )
    usual = AudioSpec()
    audio = AudioSpec(
        sampling_rate=int(general.get("sampling_rate") or usual.sampling_rate),
        n_fft=int(general.get("n_fft") or usual.n_fft),
        hop=int(general.get("hop_length") or usual.hop),
        n_mels=int(config.audio_config.num_mel_bins),
        padded_seconds=int(general.get("chunk_length") or usual.padded_seconds),
    )
    return frames, audio


def _preprocessors(folder: Path | None) -> dict[str, dict[str, Any]]:
    """Return the settings for video and the general settings of a checkpoint's files."""
    if folder is None:
        return {"video": {}, "general": {}}
    whole = _json(folder / "processor_config.json")
    general = {
        **_json(folder / "preprocessor_config.json"),
        **(whole.get("feature_extractor") or {}),
    }
    video = _json(folder / "video_preprocessor_config.json") or whole.get("video_processor") or {}
    if not video and "image_processor_type" not in general:
        video = general
    return {"video": video, "general": general}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"This file cannot be read as JSON: {error}.", path=path) from error
    return value if isinstance(value, dict) else {}
