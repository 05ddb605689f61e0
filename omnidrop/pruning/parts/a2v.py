"""Mean video embeddings predicted from audio embeddings: the predictor of ContextGuard.

A small network, trained for one model's encoders on clips without labels (`omnidrop train-a2v`). It
is kept as two files in one folder: `a2v.safetensors`, and `a2v.json` with its settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from omnidrop.pruning.method import Backbone
from omnidrop.pruning.parts.trained import Kind
from omnidrop.tokens import TokenMap


@dataclass(frozen=True)
class Shape:
    """Sizes of a predictor.

    Attributes
    ----------
    width : int
        Of the model's embeddings.
    hidden : int
        Of the network.
    heads : int
        Summaries of a chunk's audio, each with its own attention over the chunk.
    """

    width: int
    hidden: int = 64
    heads: int = 4


class Predictor(nn.Module):
    """Audio embeddings of chunks → the direction of each chunk's mean video embedding.

    Each audio token is narrowed; `heads` learned queries attend over the chunk's tokens; a
    two-layer network widens what they found.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width, hidden, heads = shape.width, shape.hidden, shape.heads
        self.narrow = nn.Linear(width, hidden)
        self.ask = nn.Linear(hidden, heads)
        self.think = nn.Linear(heads * hidden, hidden)
        self.widen = nn.Linear(hidden, width)

    def forward(self, audio: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """Predict.

        Parameters
        ----------
        audio : Tensor, (c, n, width) float32
            Audio embeddings of c chunks, padded.
        there : Tensor, (c, n) bool
            What is not padding; at least one token of each chunk.

        Returns
        -------
        Tensor, (c, width)
        """
        level = torch.nn.functional.layer_norm(audio, audio.shape[-1:])
        narrowed = torch.nn.functional.gelu(self.narrow(level))
        weights = self.ask(narrowed).masked_fill(~there[:, :, None], -torch.inf).softmax(dim=1)
        found = torch.einsum("cnh,cnd->chd", weights, narrowed).flatten(1)
        out: torch.Tensor = self.widen(torch.nn.functional.gelu(self.think(found)))
        return out


@dataclass(frozen=True)
class Chunks:
    """A clip's audio embeddings, chunk by chunk.

    Attributes
    ----------
    audio : Tensor, (c, n, D) float32
        Audio embeddings of the chunks with audio, padded.
    there : Tensor, (c, n) bool
        What is not padding.
    number : Tensor, (c,) int64
        Which chunks those are, ascending.
    """

    audio: torch.Tensor
    there: torch.Tensor
    number: torch.Tensor

    @classmethod
    def of(cls, tokens: TokenMap, embeds: torch.Tensor) -> Chunks:
        """Gather the audio tokens of each chunk that has any."""
        index = tokens.audio.cpu().nonzero().flatten()
        number, sizes = torch.unique(tokens.chunk[index].cpu().long(), return_counts=True)
        most = int(sizes.max()) if len(sizes) else 0
        there = torch.arange(most) < sizes[:, None]
        order = torch.sort(tokens.chunk[index].cpu().long(), stable=True).indices
        audio = torch.zeros(len(number), most, embeds.shape[1], device=embeds.device)
        audio[there.to(embeds.device)] = embeds[index[order].to(embeds.device)].float()
        return cls(audio, there.to(embeds.device), number)


def mean_picture(tokens: TokenMap, embeds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which chunks have video, (c,) int64, and their mean video embeddings, (c, D)."""
    index = tokens.video.cpu().nonzero().flatten()
    number, place, sizes = torch.unique(
        tokens.chunk[index].cpu().long(), return_inverse=True, return_counts=True
    )
    sums = torch.zeros(len(number), embeds.shape[1], device=embeds.device)
    sums.index_add_(0, place.to(embeds.device), embeds[index.to(embeds.device)].float())
    return number, sums / sizes.to(sums)[:, None]


#: How a predictor is kept, in half precision.
KIND = Kind(
    stem="a2v",
    what="audio-to-visual predictor",
    method="ContextGuard",
    train="Train one: omnidrop train-a2v CLIP... --model MODEL --out FOLDER, then --set predictor=",
    make=lambda sizes: Predictor(Shape(**sizes)),
    dtype=torch.float16,
)


def find(given: str | None, backbone: Backbone | None, width: int) -> Predictor:
    """Return the predictor for a model; see `Kind.find`."""
    return cast(Predictor, KIND.find(given, backbone, width).module)


@torch.inference_mode()
def predict(
    predictor: Predictor, tokens: TokenMap, embeds: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Predict the mean video embedding of every chunk with audio.

    Returns
    -------
    number : Tensor, (c,) int64
        Which chunks those are, ascending.
    pictures : Tensor, (c, D) float32
        On the device of `embeds`.
    """
    chunks = Chunks.of(tokens, embeds)
    if not len(chunks.number):
        return chunks.number, chunks.audio.new_zeros(0, embeds.shape[1])
    return chunks.number, predictor.to(embeds.device)(chunks.audio, chunks.there)
