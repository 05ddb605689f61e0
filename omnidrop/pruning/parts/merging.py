"""Entry reduction of video: tokens that repeat the same place of an earlier grid merge into it.

Temporal merging in the manner of DyCoke (https://arxiv.org/abs/2411.15024) over groups of four
temporal grids. The papers speak of "four frames"; a temporal grid of tokens may cover several
sampled frames, and the share they print, (1 + 3 · 0.2)/4 = 40 %, needs one grid in four kept whole.
So a group is four grids.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from omnidrop.pruning.method import Entry, Mix
from omnidrop.pruning.parts.select import even, rank_within, shares
from omnidrop.tokens import TokenMap
from omnidrop.transfers import to_device

#: Tokens compared at once: bounds the float32 copies, and keeps them in the processor's caches.
_BLOCK = 512
#: The same on a GPU, where every block costs launches.
_BLOCK_GPU = 8192


@dataclass(frozen=True)
class Groups:
    """Video tokens in groups of temporal grids.

    Attributes
    ----------
    frame : Tensor, (n,) int64
        Temporal grid of each token, counted 0, 1, 2, … in order of time.
    anchor : Tensor, (n,) int64
        Index of the token at the same place in the first grid of the group; a token is its own
        anchor in that grid, and where that grid has no token at its place.
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
    return _grouped(*_numbered(video), size)


def _numbered(video: TokenMap) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the temporal grid and the place in it of video tokens, both counted 0, 1, 2, …"""
    grid = video.grid.long()
    times = video.chunk.long() * (grid[:, 0].max() + 1) + grid[:, 0]
    return _ranked(times), _ranked(grid[:, 1] * (grid[:, 2].max() + 1) + grid[:, 2])


def _ranked(numbers: torch.Tensor) -> torch.Tensor:
    """Return the rank of each number among those that occur, (n,) int64 ≥ 0 → (n,) int64."""
    most = int(numbers.max()) + 1
    if most > 16 * len(numbers):
        return torch.unique(numbers, return_inverse=True)[1]
    there = torch.zeros(most, dtype=torch.int64)
    there[numbers] = 1
    return (there.cumsum(0) - 1)[numbers]  # as `torch.unique` counts them, without its sort


def _grouped(frame: torch.Tensor, place: torch.Tensor, size: int) -> Groups:
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

    Notes
    -----
    All three are where `embeds` are. How many there are of each follows from the token map alone,
    so the host does not wait for the embeddings.
    """
    device = embeds.device
    none = torch.empty(0, dtype=torch.int64, device=device)
    if count >= len(video):
        return torch.arange(len(video), device=device), none, none
    if count == 0:
        return none, none, none
    frame, place = _numbered(video)
    groups = _grouped(frame, place, size)
    frames = int(frame.max()) + 1
    while size < frames and int(groups.anchors.sum()) > count:
        size *= 2
        groups = _grouped(frame, place, size)
    anchors = groups.anchors.nonzero().flatten()
    if len(anchors) >= count:
        chosen = anchors[even(len(anchors), count)]
        kept = torch.zeros(len(video), dtype=torch.bool)
        kept[chosen] = True
        target, source = takes_in(groups.anchor, kept)
        return to_device(chosen, device), to_device(target, device), to_device(source, device)
    followers = (~groups.anchors).nonzero().flatten()
    leaders = groups.anchor[followers]
    new, merged_away = _distinct(embeds, index, groups, followers, count - len(anchors))
    anchors, followers, leaders = (to_device(x, device) for x in (anchors, followers, leaders))
    keep = torch.cat((anchors, followers[new])).sort().values
    target = torch.cat((anchors, leaders[merged_away]))
    return keep, target, torch.cat((anchors, followers[merged_away]))


def _block(device: torch.device) -> int:
    """Return how many tokens are compared at a time."""
    return _BLOCK if device.type == "cpu" else _BLOCK_GPU


def natural_count(video: TokenMap, prune: float, size: int = 4) -> int:
    """Return how many video tokens the paper's rate keeps: first grids whole, others 1 − prune."""
    anchors = int(group_grids(video, size).anchors.sum())
    return anchors + round((1 - prune) * (len(video) - anchors))


def _distinct(
    embeds: torch.Tensor,
    index: torch.Tensor,
    groups: Groups,
    followers: torch.Tensor,
    count: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split the followers into the `count` least like their anchors, by quota per grid, and others.

    Returns
    -------
    Tensor, (count,) int64, and Tensor, int64
        Indices into `followers`, ascending, where `embeds` are.
    """
    device = embeds.device
    likeness = _cosine(embeds, index[followers], index[groups.anchor[followers]])
    frame = groups.frame[followers]
    sizes = torch.bincount(frame)
    place, sizes = _ranked(frame), sizes[sizes > 0]
    place, sizes, quota = (to_device(x, device) for x in (place, sizes, shares(sizes, count)))
    order = torch.sort(likeness, stable=True).indices
    rank = torch.empty_like(order)
    rank[order] = rank_within(place[order], sizes)
    others = (rank >= quota[place]).to(torch.uint8)
    split = torch.sort(others, stable=True).indices
    return split[:count], split[count:]


def _cosine(embeds: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the cosine of rows `a` and rows `b`, (n,) float32, where `embeds` are."""
    a, b = to_device(a, embeds.device), to_device(b, embeds.device)
    block = _block(embeds.device)
    parts = [
        torch.cosine_similarity(embeds[i].float(), embeds[j].float(), dim=-1)
        for i, j in zip(a.split(block), b.split(block), strict=True)
    ]
    return torch.cat(parts)


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
    ones = torch.ones(len(target), device=target.device)
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
    merged_away = (~kept & kept[anchor]).nonzero().flatten()
    into = anchor[merged_away]
    merged = torch.unique(into)
    return torch.cat((merged, into)), torch.cat((merged, merged_away))
