"""Reads Qwen3-Omni's sizes and its requirements on frames and audio from a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from omnidrop.clip.specs import AudioSpec, VideoSpec
from omnidrop.errors import ModelError
from omnidrop.models import config_sizes
from omnidrop.models.preprocessors import read_specs
from omnidrop.shapes import AudioShape, Experts, Projections, Shapes, TextShape, VisionShape

NAME = "Qwen3-Omni"

#: Taps of the audio encoder's two-dimensional convolutions, of which there are three.
_TAPS = 9
#: Audio tokens of a whole chunk of log-mel frames.
TOKENS_PER_CHUNK = 13


def shapes(config: Any) -> Shapes:
    """Return the sizes in a thinker's config (`Qwen3OmniMoeThinkerConfig`)."""
    return Shapes(
        text_shape(config.text_config),
        vision_shape(config.vision_config),
        audio_shape(config.audio_config),
    )


def text_shape(config: Any) -> TextShape:
    """Return the sizes in the decoder's config.

    Raises
    ------
    ModelError
        If layers without experts are not the first ones.
    """
    layers = int(config.num_hidden_layers)
    sparse = [
        index not in config.mlp_only_layers
        and int(config.num_experts) > 0
        and (index + 1) % int(config.decoder_sparse_step) == 0
        for index in range(layers)
    ]
    dense = sparse.index(True) if True in sparse else layers
    if not all(sparse[dense:]):
        raise ModelError(
            "Layers with and without experts alternate in this model, which OmniDrop does not run.",
            hint=f"Use a checkpoint of the {NAME} family as published.",
        )
    experts = Experts(
        count=int(config.num_experts),
        active=int(config.num_experts_per_tok),
        width=int(config.moe_intermediate_size),
        dense_layers=dense,
    )
    return config_sizes.text_shape(config, experts=experts if dense < layers else None)


def vision_shape(config: Any) -> VisionShape:
    """Return the sizes in the vision encoder's config."""
    return config_sizes.vision_shape(
        config,
        window=0,
        full_attention=(),
        gated=False,
        planes=1 + len(config.deepstack_visual_indexes),
    )


def audio_shape(config: Any) -> AudioShape:
    """Return the sizes in the audio encoder's config."""
    return sized_audio(
        layers=int(config.encoder_layers),
        hidden=int(config.d_model),
        intermediate=int(config.encoder_ffn_dim),
        heads=int(config.encoder_attention_heads),
        mel_bins=int(config.num_mel_bins),
        window=int(config.n_window_infer),
        output=int(config.output_dim),
        channels=int(config.downsample_hidden_size),
        chunk=2 * int(config.n_window),
    )


def sized_audio(
    *,
    layers: int,
    hidden: int,
    intermediate: int,
    heads: int,
    mel_bins: int,
    window: int,
    output: int,
    channels: int,
    chunk: int,
) -> AudioShape:
    """Return the sizes of an audio encoder.

    Parameters
    ----------
    layers, hidden, intermediate, heads, mel_bins, window, output : int
        As in `AudioShape`.
    channels : int
        Channels of the three convolutions, each with stride 2 over mel bins and frames.
    chunk : int
        Log-mel frames that the convolutions see at once.
    """
    bins = [mel_bins]
    for _ in range(3):
        bins.append((bins[-1] + 1) // 2)
    projection = channels * bins[3] * hidden
    # Frames that remain after one and two convolutions, per token.
    first, second = (Fraction(chunk, by * TOKENS_PER_CHUNK) for by in (2, 4))
    stem = _TAPS * channels * (bins[1] * first + channels * (bins[2] * second + bins[3]))
    return AudioShape(
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        mel_bins=mel_bins,
        window=window,
        output=output,
        frames_per_position=Fraction(chunk, TOKENS_PER_CHUNK),
        positions_per_token=1,
        projections=Projections(
            stem=_TAPS * channels * (1 + 2 * channels) + projection,
            stem_per_position=round(stem) + projection,
            head=hidden * (hidden + output),
        ),
    )


def media_specs(folder: Path | None, config: Any | None) -> tuple[VideoSpec, AudioSpec]:
    """Return the encoders' requirements on frames and audio.

    Each frame has 128 to 768 tokens of 32 × 32 pixels, a clip as many as its frames take. Audio is
    not padded.

    Parameters
    ----------
    folder : Path or None
        The checkpoint's, for `omnidrop.models.preprocessors.read_specs`.
    config : Qwen3OmniMoeThinkerConfig or None
        None for the published values.
    """
    patch, temporal, merge, mel_bins = 16, 2, 2, 128
    if config is not None:
        vision = config.vision_config
        patch, temporal = int(vision.patch_size), int(vision.temporal_patch_size)
        merge, mel_bins = int(vision.spatial_merge_size), int(config.audio_config.num_mel_bins)
    token = (patch * merge) ** 2
    usual = VideoSpec(
        patch_size=patch,
        temporal_patch_size=temporal,
        merge_size=merge,
        min_pixels=128 * token,
        max_pixels=768 * token,
        total_pixels=None,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    video, audio = read_specs(folder, usual, AudioSpec(n_mels=mel_bins))
    return video, replace(audio, padded_seconds=0)
