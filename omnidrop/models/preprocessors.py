"""Reads a checkpoint's requirements on frames and audio from its preprocessor files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from omnidrop.clip.specs import AudioSpec, VideoSpec
from omnidrop.errors import ModelError


def read_specs(
    folder: Path | None, usual: VideoSpec, usual_audio: AudioSpec
) -> tuple[VideoSpec, AudioSpec]:
    """Return the encoders' requirements on frames and audio.

    Limits on pixels come from a file about *video*: `video_preprocessor_config.json`, or the
    `video_processor` part of `processor_config.json`, or a `preprocessor_config.json` that does not
    describe an image processor. The hub's `preprocessor_config.json` describes one, so its limits
    are for images, and the reference replaces them by the family's own for video. Limits larger
    than these are taken as limits for images in any file.

    Parameters
    ----------
    folder : Path or None
        The checkpoint's; None for the usual values.
    usual, usual_audio : VideoSpec, AudioSpec
        The family's, with what the checkpoint's config says of patches and mel bins.

    Raises
    ------
    ModelError
        If a file is not JSON.
    """
    files = _preprocessors(folder)
    video, general = files["video"], files["general"]
    both = {**general, **video}
    size = video.get("size") or {}
    lower = size.get("shortest_edge") or video.get("min_pixels") or usual.min_pixels
    upper = size.get("longest_edge") or video.get("max_pixels") or usual.max_pixels
    if int(upper) > usual.max_pixels:
        lower, upper = usual.min_pixels, usual.max_pixels
    frames = replace(
        usual,
        min_pixels=int(lower),
        max_pixels=int(upper),
        mean=tuple(both.get("image_mean") or usual.mean),
        std=tuple(both.get("image_std") or usual.std),
    )
    audio = replace(
        usual_audio,
        sampling_rate=int(general.get("sampling_rate") or usual_audio.sampling_rate),
        n_fft=int(general.get("n_fft") or usual_audio.n_fft),
        hop=int(general.get("hop_length") or usual_audio.hop),
        padded_seconds=int(general.get("chunk_length") or usual_audio.padded_seconds),
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
