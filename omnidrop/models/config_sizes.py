"""Sizes that configs of transformers state under the same names in every family."""

from __future__ import annotations

from typing import Any

from omnidrop.shapes import Experts, TextShape, VisionShape


def text_shape(config: Any, *, experts: Experts | None = None, tied: bool = False) -> TextShape:
    """Return the sizes in a decoder's config.

    Parameters
    ----------
    config : PreTrainedConfig
    experts, tied
        As in `TextShape`.
    """
    heads = int(config.num_attention_heads)
    return TextShape(
        layers=int(config.num_hidden_layers),
        hidden=int(config.hidden_size),
        intermediate=int(config.intermediate_size),
        heads=heads,
        kv_heads=int(config.num_key_value_heads),
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        vocab=int(config.vocab_size),
        experts=experts,
        tied=tied,
    )


def vision_shape(
    config: Any,
    *,
    window: int,
    full_attention: tuple[int, ...],
    gated: bool = True,
    planes: int = 1,
) -> VisionShape:
    """Return the sizes in a vision encoder's config.

    Parameters
    ----------
    config : PreTrainedConfig
    window, full_attention, gated, planes
        As in `VisionShape`.
    """
    return VisionShape(
        layers=int(config.depth),
        hidden=int(config.hidden_size),
        intermediate=int(config.intermediate_size),
        heads=int(config.num_heads),
        patch=int(config.patch_size),
        temporal_patch=int(config.temporal_patch_size),
        merge=int(config.spatial_merge_size),
        window=window,
        full_attention=full_attention,
        output=int(config.out_hidden_size),
        gated=gated,
        planes=planes,
    )


def windowed_vision_shape(config: Any) -> VisionShape:
    """Return the sizes in the config of a vision encoder with attention inside windows."""
    return vision_shape(
        config,
        window=int(config.window_size),
        full_attention=tuple(int(i) for i in config.fullatt_block_indexes),
    )
