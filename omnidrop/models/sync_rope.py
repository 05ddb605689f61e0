"""Decoders whose heads turn by [T, H, W, T] instead of M-RoPE's [T, H, W] (Sync-RoPE).

A checkpoint says so in its config: `rope_parameters` of the text part has the `rope_type` "sync",
and `mrope_section` four numbers. It is made by training a decoder behind a refiner (EchoingPixels,
https://arxiv.org/abs/2512.10324), and cannot be told from the weights.

Why a type of its own: transformers knows no "sync" and refuses to build such a decoder, in every
version. Four sections under the usual type would be read without a word: as [T, H, W, T] by some
versions and as other axes by older ones, and always without the refiner, whose states are the only
ones that the decoder has learned from. `readable` gives transformers the usual type, and `install`
then puts in place of its rotary embedding the one that the config asks for.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from omnidrop.errors import ModelError
from omnidrop.recommended import Recommended
from omnidrop.rotary import angles, frequencies

#: The `rope_type` of such a decoder.
KIND = "sync"

#: Names of the part of a text config that describes the rotary embedding, and of its type.
_PLACES, _TYPES = ("rope_parameters", "rope_scaling"), ("rope_type", "type")

#: What answers the questions that name no method: the decoder has learned from its states alone.
RECOMMENDED = Recommended(
    method="echoingpixels",
    budget=0.2,
    source="this decoder was trained behind EchoingPixels' refiner",
    always=True,
)


def is_sync(config: Mapping[str, Any]) -> bool:
    """Whether a thinker's config asks for Sync-RoPE."""
    return any(_kind(part) == KIND for part in _rope(config))


def readable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a thinker's config as transformers can read it: "sync" becomes the usual type."""
    if not is_sync(config):
        return dict(config)
    found = copy.deepcopy(dict(config))
    for part in _rope(found):
        part.update({name: "default" for name in _TYPES if name in part})
    return found


def written(config: Mapping[str, Any], sections: tuple[int, ...]) -> dict[str, Any]:
    """Return a thinker's config, as transformers writes it, that asks for Sync-RoPE."""
    found = copy.deepcopy(dict(config))
    for part in _rope(found):
        part.pop("type", None)
        part.update(rope_type=KIND, mrope_section=list(sections))
    return found


class SyncRotary(nn.Module):
    """The rotary embedding of such a decoder; it is called as that of transformers.

    Parameters
    ----------
    head_dim : int
    theta : float
    sections : tuple of int
        Pairs of channels that turn by time, row, column, and by time again.
    """

    turning: torch.Tensor

    def __init__(self, head_dim: int, theta: float, sections: tuple[int, ...]) -> None:
        super().__init__()
        self.sections = sections
        self.register_buffer("turning", frequencies(head_dim, theta), persistent=False)

    def forward(
        self, like: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines, (b, n, head_dim) each, in the dtype of `like`.

        Parameters
        ----------
        like : Tensor
        positions : Tensor, (3, b, n)
        """
        cos, sin = angles(positions, self.turning.float(), self.sections)
        return cos.to(like.dtype), sin.to(like.dtype)


def install(thinker: Any) -> None:
    """Give a loaded thinker of transformers the rotary embedding that its sections ask for.

    Parameters
    ----------
    thinker : Module
        Loaded from a config that `readable` made.

    Raises
    ------
    ModelError
        If the decoder's sections are not four that are half a head.
    """
    holder = thinker.model
    text = getattr(holder, "language_model", holder)
    rope = text.config.rope_parameters
    head_dim = int(text.layers[0].self_attn.head_dim)
    sections = tuple(rope["mrope_section"])
    if len(sections) != 4 or 2 * sum(sections) != head_dim:
        raise ModelError(f"Sync-RoPE needs four sections of {head_dim // 2} in all: {sections}.")
    rotary = SyncRotary(head_dim, float(rope["rope_theta"]), sections)
    text.rotary_emb = rotary.to(text.rotary_emb.inv_freq.device)


def _rope(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a thinker's config that describe the decoder's rotary embedding."""
    text = config.get("text_config")
    found = [text.get(name) for name in _PLACES] if isinstance(text, Mapping) else []
    return [part for part in found if isinstance(part, dict)]


def _kind(part: Mapping[str, Any]) -> Any:
    return next((part[name] for name in _TYPES if name in part), None)
