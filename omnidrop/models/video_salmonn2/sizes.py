"""Reads video-SALMONN 2+'s sizes and its requirements on frames and audio from a checkpoint.

The figures are those of the published code (github.com/bytedance/video-SALMONN-2, directory
`video_SALMONN2_plus`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from omnidrop.clip.specs import AudioSpec, VideoSpec
from omnidrop.errors import ModelError
from omnidrop.models.config_sizes import text_shape, windowed_vision_shape
from omnidrop.models.preprocessors import read_specs
from omnidrop.shapes import AudioShape, Projections, Shapes

NAME = "video-SALMONN 2+"

#: Positions of the audio encoder per second: half the log-mel frames.
POSITIONS_PER_SECOND = 50
#: Log-mel frames per position.
FRAMES_PER_POSITION = 2

#: Frames sampled per second, and limits on their number.
_FPS, _LEAST_FRAMES, _MOST_FRAMES = 10.0, 16, 768
#: Pixels of a frame in a clip with the most frames.
_LONG_PIXELS = 61_250
#: Fewer frames share this part of the pixels of the most frames.
_SHARE = 0.95


@dataclass(frozen=True)
class AudioConfig:
    """Sizes of the audio encoder: Whisper's layers, then a Q-Former over short windows.

    Attributes
    ----------
    mel_bins, layers, hidden, heads, inner : int
        Whisper's encoder.
    positions : int
        Positions of a piece of audio, which is twice as many log-mel frames: 1500 for 30 s.
    window, stride : int
        Positions that a query attends to, and from one window to the next.
    q_layers, q_hidden, q_heads, q_inner : int
        The Q-Former.
    q_eps : float
        Of its norms.
    queries : int
        Queries, and so tokens, per window.
    output : int
        Width of the tokens: the decoder's.
    """

    mel_bins: int = 128
    layers: int = 32
    hidden: int = 1280
    heads: int = 20
    inner: int = 5120
    positions: int = 1500
    window: int = 25
    stride: int = 25
    q_layers: int = 2
    q_hidden: int = 3072
    q_heads: int = 12
    q_inner: int = 12288
    q_eps: float = 1e-12
    queries: int = 1
    output: int = 3584

    @property
    def piece_frames(self) -> int:
        """Log-mel frames of a piece."""
        return FRAMES_PER_POSITION * self.positions

    @property
    def piece_seconds(self) -> int:
        """Seconds of a piece."""
        return self.positions // POSITIONS_PER_SECOND

    @property
    def piece_tokens(self) -> int:
        """Tokens of a piece."""
        return ((self.positions - self.window) // self.stride + 1) * self.queries

    @property
    def tokens_per_second(self) -> Fraction:
        """Tokens per second of audio."""
        return Fraction(POSITIONS_PER_SECOND * self.queries, self.stride)


def audio_config(config: Any) -> AudioConfig:
    """Read the audio encoder's sizes from a thinker's config.

    Parameters
    ----------
    config : Qwen2_5_VLConfig
        With the attribute `audio_config`; what is not in it has the published value.

    Raises
    ------
    ModelError
        If it describes an encoder that is not run here.
    """
    audio = _plain(config.audio_config)
    former = _plain(audio.get("qformer_config"))
    usual = AudioConfig()
    for part, key, expected in (
        (audio, "activation_function", "gelu"),
        (former, "hidden_act", "gelu"),
        (former, "cross_attention_freq", 1),
        (former, "position_embedding_type", "absolute"),
    ):
        if part.get(key, expected) != expected:
            raise ModelError(
                f"The audio encoder's {key} is {part[key]!r}, which OmniDrop does not run.",
                hint=f"Use a checkpoint of the {NAME} family as published.",
            )

    def number(part: Mapping[str, Any], key: str, default: float) -> int:
        return int(part.get(key) or default)

    # Seconds are rounded to positions as in the published code: 1500 for 30 s.
    window, stride = (
        round(1500 * float(audio.get(key) or 0.5) / 30)
        for key in ("second_per_window", "second_stride")
    )
    found = AudioConfig(
        mel_bins=number(audio, "num_mel_bins", usual.mel_bins),
        layers=number(audio, "encoder_layers", usual.layers),
        hidden=number(audio, "d_model", usual.hidden),
        heads=number(audio, "encoder_attention_heads", usual.heads),
        inner=number(audio, "encoder_ffn_dim", usual.inner),
        positions=number(audio, "max_source_positions", usual.positions),
        window=window,
        stride=stride,
        q_layers=number(former, "num_hidden_layers", usual.q_layers),
        q_hidden=number(former, "hidden_size", usual.q_hidden),
        q_heads=number(former, "num_attention_heads", usual.q_heads),
        q_inner=number(former, "intermediate_size", usual.q_inner),
        q_eps=float(former.get("layer_norm_eps") or usual.q_eps),
        queries=number(former, "query_length", usual.queries),
        output=int(config.text_config.hidden_size),
    )
    if found.positions % POSITIONS_PER_SECOND or not 0 < stride <= window <= found.positions:
        raise ModelError(
            f"The audio encoder has pieces of {found.positions} positions and windows of {window}, "
            "which OmniDrop does not run.",
            hint=f"Use a checkpoint of the {NAME} family as published.",
        )
    return found


def _plain(part: Any) -> Mapping[str, Any]:
    """Return a part of a config as a mapping; transformers may have made an object of it."""
    if part is None:
        return {}
    return part if isinstance(part, Mapping) else part.to_dict()


def shapes(config: Any) -> Shapes:
    """Return the sizes in a thinker's config (`Qwen2_5_VLConfig` with `audio_config`)."""
    return Shapes(
        text_shape(config.text_config, tied=bool(config.tie_word_embeddings)),
        windowed_vision_shape(config.vision_config),
        audio_shape(audio_config(config)),
    )


def audio_shape(audio: AudioConfig) -> AudioShape:
    """Return the sizes of the audio encoder.

    Notes
    -----
    The Q-Former's keys and values are computed for every position of a window, so their weights are
    counted with the stem, which is used once per position; so is the position table, which takes no
    arithmetic.
    """
    taps, wide = 3 * audio.hidden, audio.q_hidden
    keys_values = 2 * audio.hidden * wide * audio.q_layers
    overlap = Fraction(audio.window, audio.stride)
    # Self-attention, the cross-attention's queries and output, and the MLP.
    layer = wide * (4 * wide + 2 * wide + 2 * audio.q_inner)
    return AudioShape(
        layers=audio.layers,
        hidden=audio.hidden,
        intermediate=audio.inner,
        heads=audio.heads,
        mel_bins=audio.mel_bins,
        window=audio.piece_frames,
        output=audio.output,
        frames_per_position=Fraction(FRAMES_PER_POSITION),
        positions_per_token=max(1, audio.stride // audio.queries),
        projections=Projections(
            stem=taps * (audio.mel_bins + audio.hidden)
            + audio.positions * audio.hidden
            + keys_values,
            # The first convolution has twice as many outputs as the second.
            stem_per_position=taps * (2 * audio.mel_bins + audio.hidden)
            + round(keys_values * overlap),
            head=audio.q_layers * layer + wide * audio.output,
        ),
    )


def media_specs(folder: Path | None, config: Any | None) -> tuple[VideoSpec, AudioSpec]:
    """Return the encoders' requirements on frames and audio.

    A clip has 16 to 768 frames, ten a second. A frame of a clip with 768 has up to 61,250 pixels;
    fewer frames share 95 % of the pixels of 768, so that a clip of any length takes about as many
    tokens. Audio is read in pieces of 30 s, each padded with silence.

    Parameters
    ----------
    folder : Path or None
        The checkpoint's, for the normalisation of pixels; its limits are those of images.
    config : Qwen2_5_VLConfig or None
        None for the published values.
    """
    patch, temporal, merge, audio = 14, 2, 2, AudioConfig()
    if config is not None:
        vision = config.vision_config
        patch, temporal = int(vision.patch_size), int(vision.temporal_patch_size)
        merge, audio = int(vision.spatial_merge_size), audio_config(config)
    total = round(_SHARE * _MOST_FRAMES * _LONG_PIXELS)
    usual = VideoSpec(
        patch_size=patch,
        temporal_patch_size=temporal,
        merge_size=merge,
        min_pixels=4 * (patch * merge) ** 2,
        max_pixels=total,
        total_pixels=total // temporal,
        long_pixels=_LONG_PIXELS,
        fps=_FPS,
        min_frames=_LEAST_FRAMES,
        max_frames=_MOST_FRAMES,
    )
    sound = AudioSpec(n_mels=audio.mel_bins, piece_seconds=audio.piece_seconds)
    found, _ = read_specs(folder, usual, sound)
    return replace(usual, mean=found.mean, std=found.std), sound
