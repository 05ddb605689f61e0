"""What the engine needs of a model family: the one door between the engine and transformers.

A family is one file with a subclass of `Adapter`, and one line in `omnidrop/models/loading.py`.
Everything is batch size one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from omnidrop.clip.features import AudioSpec, VideoSpec
from omnidrop.models.kernels import Filled
from omnidrop.prompt import Layout, TextEncoder

#: Cosine and sine of a sequence's rotary angles, (1, n, head_dim) each.
Rotary = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class TextShape:
    """Sizes of the decoder."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int


@dataclass(frozen=True)
class VisionShape:
    """Sizes of the vision tower.

    Attributes
    ----------
    layers, hidden, intermediate, heads : int
        Blocks and widths; `intermediate` of a gated MLP.
    patch, temporal_patch, merge, window : int
        Pixels of a patch's side, frames of a patch, patches of a token's side, pixels of an
        attention window's side.
    full_attention : tuple of int
        Blocks that attend over the whole frame instead of windows.
    output : int
        Width of the embeddings it makes.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    patch: int
    temporal_patch: int
    merge: int
    window: int
    full_attention: tuple[int, ...]
    output: int


@dataclass(frozen=True)
class AudioShape:
    """Sizes of the audio tower.

    Attributes
    ----------
    layers, hidden, intermediate, heads : int
    mel_bins : int
    window : int
        Mel frames of an attention window.
    output : int
        Width of the embeddings it makes.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    mel_bins: int
    window: int
    output: int


@dataclass(frozen=True)
class ModelInfo:
    """What a report says of the model.

    Attributes
    ----------
    name : str
        As asked for: a hub name, a folder's name, or "demo".
    family : str
        Like "Qwen2.5-Omni".
    demo : bool
        True for the small model that ships with the package.
    dtype, device, attention : str
        As used: "bfloat16", "cuda:0", "sdpa".
    quantization : str or None
        "4bit", "8bit" or None.
    text : TextShape
    vision : VisionShape
    audio : AudioShape
    parameters : int
        Of the parts loaded.
    """

    name: str
    family: str
    demo: bool
    dtype: str
    device: str
    attention: str
    quantization: str | None
    text: TextShape
    vision: VisionShape
    audio: AudioShape
    parameters: int


class LayerCache(Protocol):
    """The engine's cache as a decoder layer sees it."""

    @property
    def even(self) -> bool:
        """Whether all layers are given as many tokens."""
        ...

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the new keys and values, (1, kv_heads, n, head_dim), and return all of them.

        Where `filled` says something, n is 1 and what is returned has room behind the tokens.
        """
        ...

    def length(self, layer: int) -> int:
        """Tokens held by a layer, as far as the host knows."""
        ...

    def filled(self, layer: int) -> Filled | None:
        """How much of what `update` returns counts, where only the device knows it."""
        ...


class TextCodec(TextEncoder, Protocol):
    """Text to ids and back."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens; incomplete characters as U+FFFD."""
        ...


class Adapter(ABC):
    """A loaded model of one family.

    Attributes
    ----------
    info : ModelInfo
    device : torch.device
        Where ids and features go in.
    dtype : torch.dtype
        Of hidden states.
    layout : Layout
        Special ids and time scale.
    text : TextCodec
    stop_ids : frozenset of int
        Ids that end an answer.
    video_spec : VideoSpec
    audio_spec : AudioSpec
        What the towers ask of frames and sound, from the checkpoint's own settings.
    scaling : float
        Factor on query-key products in the decoder.
    folder : Path or None
        Where the checkpoint is, if it came from a folder.
    fingerprint : str or None
        Tells towers apart: models with equal fingerprints embed sound and pictures alike.
    """

    info: ModelInfo
    device: torch.device
    dtype: torch.dtype
    layout: Layout
    text: TextCodec
    stop_ids: frozenset[int]
    video_spec: VideoSpec
    audio_spec: AudioSpec
    scaling: float
    folder: Path | None = None
    fingerprint: str | None = None

    @abstractmethod
    def vision_tower(
        self, patches: torch.Tensor, grid: tuple[int, int, int], *, attention: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embed frames.

        Parameters
        ----------
        patches : Tensor, (t·h·w, channels·temporal_patch·patch²) float32
            As `omnidrop.clip.features.patches` makes them, on any device.
        grid : tuple of int
            (t, h, w) in patches.
        attention : bool
            Also return the attention each token received.

        Returns
        -------
        embeds : Tensor, (t·h/merge·w/merge, D)
            In the order of time, rows, columns. The same whether grids come one by one or all.
        received : Tensor, (t·h/merge·w/merge,) float32, or None
            Attention received in the last layer: mean over heads, summed over the queries of the
            frame or window, averaged over the patches merged into a token.
        """

    @abstractmethod
    def audio_tower(
        self, mel: torch.Tensor, *, attention: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embed sound.

        Parameters
        ----------
        mel : Tensor, (mel_bins, F) float32
            Log-mel at 100 frames a second, on any device. Pieces that begin at multiples of the
            tower's window (200 frames) give the same as the whole.
        attention : bool
            Also return the attention each token received.

        Returns
        -------
        embeds : Tensor, (Na, D)
        received : Tensor, (Na,) float32, or None
            Attention received in the last layer: mean over heads, summed over the queries of the
            window, averaged over the two positions pooled into a token.
        """

    @abstractmethod
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed token ids, (n,) int64 → (n, D)."""

    @abstractmethod
    def rotary(self, positions: torch.Tensor) -> Rotary:
        """Return cosine and sine of M-RoPE positions, (3, n) int64."""

    @abstractmethod
    def layer(
        self, index: int, hidden: torch.Tensor, rotary: Rotary, cache: LayerCache
    ) -> torch.Tensor:
        """Run one decoder layer, causally after what the cache holds for it.

        Parameters
        ----------
        index : int
            The layer, from 0.
        hidden : Tensor, (1, n, D)
            States entering the layer.
        rotary : Rotary
            Of the same n tokens.
        cache : LayerCache
            Grows by n tokens in this layer.

        Returns
        -------
        Tensor, (1, n, D)
        """

    @abstractmethod
    def remember(self, index: int, hidden: torch.Tensor, rotary: Rotary, cache: LayerCache) -> None:
        """Add to the cache what `layer` would add, for rows whose states nobody asks for.

        Parameters
        ----------
        index : int
            The layer.
        hidden : Tensor, (1, n, D)
            States entering the layer.
        rotary : Rotary
            Of the same n tokens.
        cache : LayerCache
            Grows by n tokens in this layer.
        """

    @abstractmethod
    def queries(self, index: int, hidden: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        """Return the rotated queries of some rows of a layer.

        Parameters
        ----------
        index : int
            The layer.
        hidden : Tensor, (1, r, D)
            States of those rows that ENTERED the layer.
        rotary : Rotary
            Of those rows.

        Returns
        -------
        Tensor, (heads, r, head_dim)
        """

    @abstractmethod
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits after one token: (1, 1, D) leaving the last layer → (V,) float32."""
