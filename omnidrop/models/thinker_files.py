"""What a thinker's config and the names of its weights say, without importing transformers.

A checkpoint of a model that also speaks has the thinker's config as a part of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: Linear layers of a decoder, under the names of the hub and of transformers.
_LINEAR = re.compile(r"\.layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj\.weight$")
_ENCODERS = re.compile(r"(^|\.)(audio|audio_tower|visual)\.")


def thinker_config(config: Mapping[str, Any]) -> Any:
    """Return the part of a config that is about the thinker; the hub's may have others besides."""
    return config.get("thinker_config") or config


def missing_part(config: Mapping[str, Any]) -> str | None:
    """Return the part that a thinker's config lacks, or None; see `Family.missing_part`."""
    thinker = thinker_config(config)
    for part in ("text_config", "vision_config", "audio_config"):
        if not isinstance(thinker, Mapping) or not isinstance(thinker.get(part), Mapping):
            return part
    return None


def stored_dtype(config: Mapping[str, Any]) -> str | None:
    """Return the dtype that a config names, the thinker's part first; see `Family.stored_dtype`."""
    for part in (thinker_config(config), config):
        if found := part.get("dtype") or part.get("torch_dtype"):
            return str(found)
    return None


def decoder_linear(weight: str) -> bool:
    """Return whether the weight of this name is a linear layer of the decoder's."""
    return bool(_LINEAR.search(weight)) and not _ENCODERS.search(weight)
