"""Entry reduction of video: tokens that repeat the same place of an earlier grid merge into it.

Temporal merging in the manner of DyCoke (arXiv 2411.15024) over groups of four temporal grids. The
papers speak of "four frames"; one token grid of Qwen-Omni already covers two frames, and the share
they print, (1 + 3 · 0.2)/4 = 40 %, needs one grid in four kept whole. So a group is four grids.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from omnidrop.prompt import TokenMap
from omnidrop.pruning.method import Entry, Mix
from omnidrop.pruning.parts.select import even, rank_within, shares

#: Tokens compared at once: bounds the float32 copies, and keeps them in the processor's caches.
_BLOCK = 512


@dataclass(frozen=True)
class Groups:
    """Video tokens in groups of temporal grids.

    Attributes
    ----------
    frame : Tensor, (n,) int64
        Temporal grid of each token, counted 0, 1, 2, … in order of time.
    anchor : Tensor, (n,) int64
        Index of the token at the same place in the first grid of the group; a token is its own
        anchor in that grid, and where that grid has nothing at its place.
    """

    frame: torch.Tensor
    anchor: torch.Tensor

    @property
    def anchors(self) -> torch.Tensor:
        """Mask of the tokens that are their own anchor, (n,) bool."""
        return self.anchor == torch.arange(len(self.anchor), device=self.anchor.device)


def group_grids(video: TokenMap, size: int) -> Groups:
    """Group video tokens by runs of `size` temporal grids.

    Parameters
    ----------
    video : TokenMap
        Video tokens only.
    size : int
        Grids per group.
    """
    grid = video.grid.long()
    times = video.chunk.long() * (grid[:, 0].max() + 1) + grid[:, 0]
    frame = torch.unique(times, return_inverse=True)[1]
    place = torch.unique(grid[:, 1] * (grid[:, 2].max() + 1) + grid[:, 2], return_inverse=True)[1]
    own = torch.arange(len(frame))
    group = frame // size
    table = own.new_full((int(group.max()) + 1, int(place.max()) + 1), -1)
    first = frame % size == 0
    table[group[first], place[first]] = own[first]
    anchor = table[group, place]
    return Groups(frame, torch.where(anchor >= 0, anchor, own))


def merge_video(
    embeds: torch.Tensor, index: torch.Tensor, video: TokenMap, count: int, *, size: int = 4
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Choose `count` video tokens and average the dropped ones into the tokens they repeat.

    The first grid of each group stays whole; each of the others keeps the tokens least like (by
    cosine) the same place in the first, the same share of every grid. A dropped token is averaged
    into its anchor. When the anchors alone are too many, groups grow to twice the size until they
    fit (ours); when one grid is too many, it is thinned evenly and nothing is merged into it.

    Parameters
    ----------
    embeds : Tensor, (N, D)
        Embeddings of all audio and video tokens; read in blocks, never copied whole.
    index : Tensor, (n,) int64
        Rows of `embeds` that are video.
    video : TokenMap
        Those n tokens.
    count : int
        How many to keep, 0..n.
    size : int
        Temporal grids per group (paper: 4).

    Returns
    -------
    keep : Tensor, (count,) int64
        Ascending indices into the video tokens.
    target, source : Tensor, (m,) int64
        Which kept tokens take in which video tokens; see `takes_in`.
    """
    nothing = torch.empty(0, dtype=torch.int64)
    if count >= len(video):
        return torch.arange(len(video)), nothing, nothing
    if count == 0:
        return nothing, nothing, nothing
    groups = group_grids(video, size)
    frames = int(groups.frame.max()) + 1
    while size < frames and int(groups.anchors.sum()) > count:
        size *= 2
        groups = group_grids(video, size)
    anchors = groups.anchors.nonzero().flatten()
    if len(anchors) >= count:
        kept = torch.zeros(len(video), dtype=torch.bool)
        kept[anchors[even(len(anchors), count)]] = True
    else:
        kept = groups.anchors | _distinct(embeds, index, groups, count - len(anchors))
    return kept.nonzero().flatten(), *takes_in(groups.anchor, kept)


def natural_count(video: TokenMap, prune: float, size: int = 4) -> int:
    """Return how many video tokens the paper's rate keeps: first grids whole, others 1 − prune."""
    anchors = int(group_grids(video, size).anchors.sum())
    return anchors + round((1 - prune) * (len(video) - anchors))


def _distinct(
    embeds: torch.Tensor, index: torch.Tensor, groups: Groups, count: int
) -> torch.Tensor:
    """Return a mask of the `count` followers least like their anchors, by quota per grid."""
    followers = (~groups.anchors).nonzero().flatten()
    likeness = _cosine(embeds, index[followers], index[groups.anchor[followers]])
    order = torch.sort(likeness, stable=True).indices
    _, place, sizes = torch.unique(groups.frame[followers], return_inverse=True, return_counts=True)
    rank = torch.empty_like(order)
    rank[order] = rank_within(place[order], sizes)
    mask = torch.zeros(len(groups.frame), dtype=torch.bool)
    mask[followers[rank < shares(sizes, count)[place]]] = True
    return mask


def _cosine(embeds: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the cosine of rows `a` and rows `b`, (n,) float32 on the CPU."""
    parts = [
        torch.cosine_similarity(embeds[i].float(), embeds[j].float(), dim=-1)
        for i, j in zip(a.split(_BLOCK), b.split(_BLOCK), strict=True)
    ]
    return torch.cat(parts).cpu()


def mixed(
    keep: torch.Tensor,
    target: torch.Tensor,
    source: torch.Tensor,
    weight: torch.Tensor | None = None,
) -> Entry:
    """Return an entry in which some of the kept tokens carry means.

    Parameters
    ----------
    keep : Tensor, (k,) int64
        Ascending indices into the view's tokens.
    target, source : Tensor, (m,) int64
        Tokens of `keep`, and what each of them takes in, row by row; see `Mix`.
    weight : Tensor, (m,) float32, optional
        1 each if left out.
    """
    if not len(target):
        return Entry(keep)
    ones = torch.ones(len(target))
    kept = torch.searchsorted(keep, target)
    return Entry(keep, Mix(kept, source, ones if weight is None else weight))


def takes_in(anchor: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which kept tokens take in which dropped ones, where a dropped one's anchor is kept.

    Parameters
    ----------
    anchor : Tensor, (n,) int64
        The token that each token merges into.
    kept : Tensor, (n,) bool

    Returns
    -------
    target, source : Tensor, (m,) int64
        Every target lists itself first.
    """
    gone = (~kept & kept[anchor]).nonzero().flatten()
    into = anchor[gone]
    merged = torch.unique(into)
    return torch.cat((merged, into)), torch.cat((merged, gone))
