"""The trained selector of OmniSIFT: video by rule, then audio by what the kept video leaves open.

Video is chosen without anything that is trained: in every other temporal grid of a chunk the tokens
least like the grid's mean, in the one after it those least like the same place of the grid before.
A small network then scores the audio of the chunk by attention to the video that was kept.

The network is trained for one model (`omnidrop train-selector`), and kept as two files in one
folder: `selector.safetensors`, and `selector.json` with its settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn

from omnidrop.pruning.method import Backbone
from omnidrop.pruning.parts.audio_guided import audio_quota
from omnidrop.pruning.parts.frames import Frames, likeness, likeness_to_mean
from omnidrop.pruning.parts.select import rank_within, shares, top_within
from omnidrop.pruning.parts.trained import Kind
from omnidrop.tokens import TokenMap

#: Whether the model's decoder stayed as it was while the selector was trained.
DecoderState = Literal["frozen", "trained"]

#: Pruning rates of audio and video (public code).
RHO_A, RHO_V = 0.3, 0.7

#: Chunks that the network sees at once: bounds the padded float32 copies.
_BLOCK = 64


@dataclass(frozen=True)
class Shape:
    """Sizes of a selector.

    Attributes
    ----------
    width : int
        Of the model's embeddings.
    hidden : int
        Of the network (public code: 512).
    heads : int
        Of its attention (public code: 8); they divide `hidden`.
    """

    width: int
    hidden: int = 512
    heads: int = 8

    def __post_init__(self) -> None:
        if min(self.width, self.hidden, self.heads) < 1 or self.hidden % self.heads:
            raise ValueError(f"{self.hidden} channels cannot have {self.heads} heads")


class Selector(nn.Module):
    """Audio embeddings of chunks, and the chunks' kept video → a score for each audio token.

    Both are narrowed by a linear layer and normalised; audio attends to video; what it found is
    added to the audio and normalised; two linear layers and a sigmoid make the score. At a width of
    3584 with the published sizes it has 4.86 million parameters.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width, hidden = shape.width, shape.hidden
        self.from_audio = nn.Sequential(nn.Linear(width, hidden), nn.LayerNorm(hidden))
        self.from_video = nn.Sequential(nn.Linear(width, hidden), nn.LayerNorm(hidden))
        self.attention = nn.MultiheadAttention(hidden, shape.heads, batch_first=True)
        self.norm = nn.LayerNorm(hidden)
        half = max(hidden // 2, 1)
        self.head = nn.Sequential(nn.Linear(hidden, half), nn.SiLU(), nn.Linear(half, 1))

    def forward(self, audio: torch.Tensor, video: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Score.

        Parameters
        ----------
        audio : Tensor, (c, n, width) float32
            Audio embeddings of c chunks, padded.
        video : Tensor, (c, m, width) float32
            Embeddings of their kept video, padded; m is at least 1.
        seen : Tensor, (c, m) bool
            What of `video` is not padding. A chunk may have none; its audio is then scored alone.

        Returns
        -------
        Tensor, (c, n) float32
            In (0, 1).
        """
        heard, watched = self.from_audio(audio), self.from_video(video)
        blind = ~seen.any(dim=1)
        hidden = ~seen
        hidden[:, 0] &= ~blind  # attention over nothing is not a number
        found, _ = self.attention(
            heard, watched, watched, key_padding_mask=hidden, need_weights=False
        )
        found = found.masked_fill(blind[:, None, None], 0.0)
        out: torch.Tensor = self.head(self.norm(found + heard)).squeeze(-1)
        return out.sigmoid()


#: How a selector is kept.
KIND = Kind(
    stem="selector",
    what="audio selector",
    method="OmniSIFT",
    train="Train one: omnidrop train-selector SET --model MODEL --out FOLDER, then --set selector=",
    make=lambda sizes: Selector(Shape(**sizes)),
    dtype=torch.float32,
)


def find(given: str | None, backbone: Backbone | None, width: int) -> Selector:
    """Return the selector for a model; see `Kind.find`."""
    return cast(Selector, KIND.find(given, backbone, width).module)


@dataclass(frozen=True)
class Sifted:
    """What stays of a clip.

    Attributes
    ----------
    keep : Tensor, (k,) int64
        Ascending indices into the AV tokens, on the CPU.
    audio : Tensor, (ka,) int64
        Places in `keep` of the audio tokens, on the CPU.
    scores : Tensor or None, (ka,) float32
        Score of each of those, on the device of the embeddings; None where all audio or none stays.
    """

    keep: torch.Tensor
    audio: torch.Tensor
    scores: torch.Tensor | None


def quotas(tokens: TokenMap, count: int, rho_a: float, rho_v: float) -> tuple[int, int]:
    """Return how many of `count` tokens are audio and how many are video.

    The two rates set how audio and video share: below their total both are scaled, above it both
    approach all tokens.
    """
    audio, video = int(tokens.audio.sum()), int(tokens.video.sum())
    path = ((0.0, 0.0), (1 - rho_a, 1 - rho_v), (1.0, 1.0))
    n_audio = audio_quota(audio, video, count, path)
    return n_audio, count - n_audio


def sift(
    selector: Selector | None,
    tokens: TokenMap,
    embeds: torch.Tensor,
    n_audio: int,
    n_video: int,
) -> Sifted:
    """Choose tokens of every chunk: video first, then audio.

    Gradients flow from `Sifted.scores` into the selector, if they are enabled; never into `embeds`.

    Parameters
    ----------
    selector : Selector or None
        On the device of the embeddings; None where all audio or none stays, and to space audio
        evenly instead.
    tokens : TokenMap
        The N AV tokens.
    embeds : Tensor, (N, D)
    n_audio, n_video : int
        How many stay.
    """
    embeds = embeds.detach()
    audio = tokens.audio.cpu().nonzero().flatten()
    video = tokens.video.cpu().nonzero().flatten()
    kept_video = video[choose_video(tokens, embeds, video, n_video)]
    chunk = tokens.chunk.cpu().long()
    place, sizes = _places(chunk[audio])
    quota = shares(sizes, n_audio)
    scores: torch.Tensor | None = None
    if selector is not None and 0 < n_audio < len(audio):
        scores = score_audio(selector, chunk, embeds, audio, kept_video)
        ranking = scores.detach().cpu()
    else:  # evenly: of n tokens, those at which the share kept reaches the next whole number
        rank, size = rank_within(place, sizes), sizes[place]
        given = quota[place]
        ranking = ((rank + 1) * given // size > rank * given // size).float()
    chosen = top_within(ranking, place, quota)
    keep, order = torch.cat((audio[chosen], kept_video)).sort()
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order))
    if scores is not None:
        scores = scores[chosen.to(scores.device)]
    return Sifted(keep, places[: len(chosen)], scores)


def choose_video(
    tokens: TokenMap, embeds: torch.Tensor, video: torch.Tensor, count: int
) -> torch.Tensor:
    """Choose `count` video tokens by rule; ascending indices into `video`.

    Parameters
    ----------
    tokens : TokenMap
        The N AV tokens.
    embeds : Tensor, (N, D)
    video : Tensor, (n,) int64
        Which of them are video.
    count : int
    """
    if count in (0, len(video)):
        return torch.arange(count)
    frames = Frames.of(tokens.select(video))
    place, sizes = _places(frames.chunk.cpu())
    second = rank_within(place, sizes) % 2 == 1
    before = torch.where(second, torch.arange(len(frames)) - 1, -1)
    alike = torch.where(
        second[frames.frame],
        likeness(embeds, video, frames.twins(before)),
        likeness_to_mean(embeds, video, frames).cpu(),
    )
    return top_within(-alike, frames.frame, shares(frames.sizes, count))


def score_audio(
    selector: Selector,
    chunk: torch.Tensor,
    embeds: torch.Tensor,
    audio: torch.Tensor,
    kept_video: torch.Tensor,
) -> torch.Tensor:
    """Score the audio of each chunk by the video that was kept of it.

    Parameters
    ----------
    selector : Selector
    chunk : Tensor, (N,) int64
        Chunk of each AV token.
    embeds : Tensor, (N, D)
    audio, kept_video : Tensor, int64
        Rows of `embeds`.

    Returns
    -------
    Tensor, (Na,) float32
        On the device of `embeds`, in the order of `audio`.
    """
    device = embeds.device
    numbers = torch.unique(chunk[audio])
    parts, order = [], []
    for block in numbers.split(_BLOCK):
        own = torch.isin(chunk[audio], block).nonzero().flatten()
        watched = kept_video[torch.isin(chunk[kept_video], block)]
        heard_in = torch.searchsorted(block, chunk[audio[own]])
        seen_in = torch.searchsorted(block, chunk[watched])
        heard, there, rows = _padded(embeds, audio[own], heard_in, len(block))
        shown, seen, _ = _padded(embeds, watched, seen_in, len(block))
        parts.append(selector(heard, shown, seen)[there])
        order.append(own[rows])
    inverse = torch.cat(order).argsort().to(device)
    return torch.cat(parts).index_select(0, inverse)


def _padded(
    embeds: torch.Tensor, rows: torch.Tensor, bins: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gather rows of `embeds` bin by bin.

    Returns
    -------
    padded : Tensor, (count, n, D) float32
        n is at least 1.
    there : Tensor, (count, n) bool
    order : Tensor, int64
        Indices into `rows` in the order in which `there` lists them.
    """
    sizes = torch.bincount(bins, minlength=count)
    most = max(int(sizes.max()), 1)
    there = (torch.arange(most) < sizes[:, None]).to(embeds.device)
    order = torch.sort(bins, stable=True).indices
    padded = torch.zeros(count, most, embeds.shape[1], device=embeds.device)
    padded[there] = embeds[rows[order].to(embeds.device)].float()
    return padded, there, order


def _places(chunk: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rank of each token's chunk among those that occur, and the chunks' sizes."""
    _, place, sizes = torch.unique(chunk, return_inverse=True, return_counts=True)
    return place, sizes
