"""Video tokens by frame and place, and how much each repeats the same place of another frame.

A frame is one temporal grid of tokens. A vision encoder may put several sampled frames into one
grid; the methods that speak of frames compare grids of tokens, so a grid is what they call a frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from omnidrop.tokens import TokenMap

#: Tokens compared at once: bounds the float32 copies.
_BLOCK = 512

#: Likeness of a token that has nothing to be compared with: under every cosine.
ALONE = -2.0


@dataclass(frozen=True)
class Frames:
    """Video tokens in frames.

    Attributes
    ----------
    frame : Tensor, (n,) int64
        Frame of each token, counted 0, 1, 2, … in order of time.
    place : Tensor, (n,) int64
        Place in the grid, the same number in every frame.
    sizes : Tensor, (f,) int64
        Tokens per frame.
    chunk : Tensor, (f,) int64
        Chunk of each frame.
    """

    frame: torch.Tensor
    place: torch.Tensor
    sizes: torch.Tensor
    chunk: torch.Tensor

    @classmethod
    def of(cls, video: TokenMap) -> Frames:
        """Sort video tokens, and only such, into frames."""
        if not len(video):
            none = torch.empty(0, dtype=torch.int64)
            return cls(none, none, none, none)
        t, h, w = video.grid.long().unbind(1)
        span = int(t.max()) + 1
        key, frame, sizes = torch.unique(
            video.chunk.long() * span + t, return_inverse=True, return_counts=True
        )
        place = torch.unique(h * (int(w.max()) + 1) + w, return_inverse=True)[1]
        return cls(frame, place, sizes, key // span)

    def __len__(self) -> int:
        return len(self.sizes)

    def twins(self, other: torch.Tensor) -> torch.Tensor:
        """Return the token at the same place of another frame.

        Parameters
        ----------
        other : Tensor, (f,) int64
            The frame that each frame is compared with; -1 for none.

        Returns
        -------
        Tensor, (n,) int64
            Index of the twin; -1 where there is none.
        """
        if not len(self):
            return self.frame
        table = self.frame.new_full((len(self) + 1, int(self.place.max()) + 1), -1)
        table[self.frame, self.place] = torch.arange(len(self.frame))
        return table[other[self.frame], self.place]  # row -1 is the empty last one


def likeness(embeds: torch.Tensor, index: torch.Tensor, twins: torch.Tensor) -> torch.Tensor:
    """Return the cosine of each token to its twin, (n,) float32 on the CPU; `ALONE` without one.

    Parameters
    ----------
    embeds : Tensor, (N, D)
    index : Tensor, (n,) int64
        Rows of `embeds` that the tokens are.
    twins : Tensor, (n,) int64
        Indices into `index`, or -1.
    """
    out = torch.full((len(index),), ALONE)
    for rows in (twins >= 0).nonzero().flatten().split(_BLOCK):
        a, b = (embeds[index[i].to(embeds.device)].float() for i in (rows, twins[rows]))
        out[rows] = torch.cosine_similarity(a, b, dim=-1).cpu()
    return out


def likeness_to_mean(embeds: torch.Tensor, index: torch.Tensor, frames: Frames) -> torch.Tensor:
    """Return the cosine of each token to the mean of its frame, (n,) float32.

    Parameters
    ----------
    embeds : Tensor, (N, D)
    index : Tensor, (n,) int64
        Rows of `embeds` that the tokens are.
    frames : Frames
        Of the same n tokens.

    Returns
    -------
    Tensor, (n,) float32
        On the device of `embeds`.
    """
    place = frames.frame.to(embeds.device)
    means = torch.zeros(len(frames), embeds.shape[1], device=embeds.device)
    for rows, into in zip(index.split(_BLOCK), place.split(_BLOCK), strict=True):
        means.index_add_(0, into, embeds[rows.to(embeds.device)].float())
    out = torch.empty(len(index), device=embeds.device)
    for rows in torch.arange(len(index)).split(_BLOCK):
        a = embeds[index[rows].to(embeds.device)].float()
        here = rows.to(embeds.device)
        out[here] = torch.cosine_similarity(a, means[place[here]], dim=-1)
    return out
