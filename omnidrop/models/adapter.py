"""The interface between the engine and a loaded model.

A family's `Family.load` returns a subclass of `Adapter` (`omnidrop.models.family`). The batch size
is always one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from omnidrop.clip.specs import AudioSpec, MediaSpec, VideoSpec
from omnidrop.errors import ModelError
from omnidrop.models.calibration import Calibration
from omnidrop.models.family import Template
from omnidrop.models.kernels import Filled
from omnidrop.models.memory import Weights
from omnidrop.models.world import World
from omnidrop.recommended import SAFE, Recommended
from omnidrop.shapes import AudioShape, Shapes, TextShape, VisionShape
from omnidrop.tokens import TextEncoder

if TYPE_CHECKING:  # transformers' attention comes with it
    from omnidrop.models.gradients import Decoder

#: Cosine and sine of a sequence's rotary angles, (1, n, head_dim) each.
Rotary = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class ModelInfo:
    """Description of a loaded model, for reports.

    Attributes
    ----------
    name : str
        As requested: a hub name, a folder's name, or "demo".
    family : str
        Name of the family.
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
        Number of parameters in the loaded parts.
    positions : str or None
        Convention of positions, for families with several.
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
    positions: str | None = None

    @property
    def shapes(self) -> Shapes:
        """Sizes of decoder, vision encoder and audio encoder."""
        return Shapes(self.text, self.vision, self.audio)


class Thinking(NamedTuple):
    """The marks around what a model thinks before it answers.

    Attributes
    ----------
    start, end : int
        Ids of the tokens around a thought.
    opened : bool
        Whether the prompt ends inside a thought.
    """

    start: int
    end: int
    opened: bool = False


class Embeds(NamedTuple):
    """Output of an encoder.

    Attributes
    ----------
    planes : tuple of Tensor, (n, D) each
        Embeddings of the same n tokens. The first plane enters the decoder. Plane i (video only) is
        added to the hidden states of these tokens after layer i - 1.
    received : Tensor, (n,) float32, or None
        Attention that each token received in the encoder's last layer; None if it was not requested
        or the encoder does not report it.
    """

    planes: tuple[torch.Tensor, ...]
    received: torch.Tensor | None = None


class LayerCache(Protocol):
    """The part of the engine's KV cache that a decoder layer uses."""

    @property
    def even(self) -> bool:
        """Whether all layers hold the same number of tokens."""
        ...

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the new keys and values, (1, kv_heads, n, head_dim), and return all of them.

        If `filled` is not None, n is 1 and the tensors returned have spare room after the tokens.
        """
        ...

    def length(self, layer: int) -> int:
        """Tokens held by a layer, as known on the host."""
        ...

    def filled(self, layer: int) -> Filled | None:
        """Filled length of what `update` returns, if only the device knows it; else None."""
        ...


class TextCodec(TextEncoder, Protocol):
    """Text to ids and back."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens; incomplete characters as U+FFFD."""
        ...

    def id(self, token: str) -> int | None:
        """Return the id of a token, or None if there is no such token."""
        ...


class Adapter(ABC):
    """A loaded model of one family.

    Attributes
    ----------
    info : ModelInfo
    device : torch.device
        Device of ids and features.
    dtype : torch.dtype
        Dtype of hidden states.
    template : Template
        Lays out the family's prompts.
    text : TextCodec
    stop_ids : frozenset of int
        Ids that end an answer.
    video_spec : VideoSpec
    audio_spec : AudioSpec
        The encoders' requirements on frames and audio, from the checkpoint's settings.
    scaling : float
        Factor on query-key products in the decoder.
    folder : Path or None
        The checkpoint's folder, if it was loaded from one.
    fingerprint : str or None
        Identifies the encoders: models with equal fingerprints embed audio and video alike.
    load_seconds : float
        Seconds that loading took, a download left out.
    warm : bool
        Whether it was loaded before the one who asks now came (`omnidrop.serving.warm`).
    weights : Weights
        Bytes of its weights; set when it is loaded.
    calibration : Calibration or None
        What the model's probabilities mean, if the checkpoint comes with that; set when it is
        loaded.
    recommended : Recommended
        The method and budget of questions that name none; set when it is loaded.
    world : World or None
        What the model knows, if its files say so; questions outside of it are refused.
    thinking : Thinking or None
        The marks around thoughts, which are no part of an answer; None for models without any.
    """

    info: ModelInfo
    device: torch.device
    dtype: torch.dtype
    template: Template
    text: TextCodec
    stop_ids: frozenset[int]
    video_spec: VideoSpec
    audio_spec: AudioSpec
    scaling: float
    folder: Path | None = None
    fingerprint: str | None = None
    load_seconds: float = 0.0
    warm: bool = False
    weights: Weights = Weights()
    calibration: Calibration | None = None
    recommended: Recommended = SAFE
    world: World | None = None
    thinking: Thinking | None = None

    @property
    def media_spec(self) -> MediaSpec:
        """The encoders' requirements on a clip."""
        return MediaSpec(
            self.video_spec,
            self.audio_spec,
            self.template.chunk_seconds,
            self.template.audio_tokens,
        )

    @abstractmethod
    def encode_video(
        self, patches: torch.Tensor, grid: tuple[int, int, int], *, attention: bool = False
    ) -> Embeds:
        """Run the vision encoder over frames.

        Parameters
        ----------
        patches : Tensor, (t·h·w, channels·temporal_patch·patch²) float32
            As `omnidrop.clip.patches.patches` returns them, on any device.
        grid : tuple of int
            (t, h, w) in patches.
        attention : bool
            Also return the attention each token received.

        Returns
        -------
        Embeds
            Of t·h/merge·w/merge tokens, in the order of time, rows, columns; the same whether grids
            are encoded one by one or in one call. Attention received is the mean over heads, summed
            over the queries of the frame or window, averaged over the patches merged into a token.
        """

    @abstractmethod
    def encode_audio(self, mel: torch.Tensor, *, attention: bool = False) -> Embeds:
        """Run the audio encoder over a log-mel spectrogram.

        Parameters
        ----------
        mel : Tensor, (mel_bins, F) float32
            Log-mel as `audio_spec` defines it, on any device. Encoding pieces that begin at
            multiples of the encoder's window (`AudioShape.window`) gives the same as the whole.
        attention : bool
            Also return the attention each token received.

        Returns
        -------
        Embeds
            One plane, in the order of time. Attention received is the mean over heads, summed over
            the queries of the window, averaged over the positions pooled into a token; None if the
            family's encoder does not report it.
        """

    @abstractmethod
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed token ids, (n,) int64 → (n, D)."""

    @abstractmethod
    def rotary(self, positions: torch.Tensor) -> Rotary:
        """Return cosine and sine of rotary positions, (3, n) int64 or float32."""

    @abstractmethod
    def layer(
        self, index: int, hidden: torch.Tensor, rotary: Rotary, cache: LayerCache
    ) -> torch.Tensor:
        """Run one decoder layer with causal attention over the cache and the new rows.

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
    def cache_kv(self, index: int, hidden: torch.Tensor, rotary: Rotary, cache: LayerCache) -> None:
        """Compute only keys and values, for rows whose output is not used (in the last layer).

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

    def decoder(self) -> Decoder:
        """Return the decoder with gradients, for training.

        Raises
        ------
        ModelError
            If gradients cannot pass it, as it is loaded or in this family.
        """
        raise ModelError(
            f"{self.info.family} has no decoder that gradients flow through.",
            hint="Use a checkpoint of a family that comes with omnidrop.",
        )
