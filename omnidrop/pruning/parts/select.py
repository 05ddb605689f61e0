"""Choosing tokens by score or by spacing: small pure functions that the methods share.

Everything is stable: equal scores keep the earlier token, so a run can be repeated anywhere.
"""

from __future__ import annotations

import torch

from omnidrop.tokens import TokenMap


def top(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Return the indices of the `count` highest scores, ascending; ties keep the earlier.

    Parameters
    ----------
    scores : Tensor, (n,)
    count : int

    Returns
    -------
    Tensor, (count,) int64
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    return order[:count].sort().values


def even(length: int, count: int) -> torch.Tensor:
    """Return `count` evenly spaced indices out of `length`, centred, ascending."""
    steps = torch.arange(count, dtype=torch.int64)
    return (2 * steps + 1) * length // (2 * count) if count else steps


def shares(sizes: torch.Tensor, count: int) -> torch.Tensor:
    """Split `count` over bins in proportion to their sizes, in whole numbers.

    Cumulative rounding: each bin gets its share rounded up or down, never more than its size, and
    the sum is exact.

    Parameters
    ----------
    sizes : Tensor, (b,) int64
    count : int
        At most the sum of the sizes.

    Returns
    -------
    Tensor, (b,) int64
    """
    total = int(sizes.sum())
    if total == 0:
        return torch.zeros_like(sizes)
    edges = (2 * sizes.cumsum(0) * count + total) // (2 * total)
    return edges.diff(prepend=edges.new_zeros(1))


def spread(bins: torch.Tensor, count: int) -> torch.Tensor:
    """Return `count` tokens, evenly spaced inside every bin, each bin in proportion to its size.

    Parameters
    ----------
    bins : Tensor, (n,) int
        Bin of each token, in any order.
    count : int

    Returns
    -------
    Tensor, (count,) int64
        Ascending.
    """
    _, place, sizes = torch.unique(bins, return_inverse=True, return_counts=True)
    quota = shares(sizes, count)[place]
    rank = rank_within(place, sizes)
    size = sizes[place]
    kept = (rank + 1) * quota // size > rank * quota // size
    return kept.nonzero().flatten()


def rank_within(place: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Return each token's rank among the tokens of its bin, in the order they are given.

    Parameters
    ----------
    place : Tensor, (n,) int64
        Bin of each token, 0..b-1.
    sizes : Tensor, (b,) int64
        Tokens per bin.
    """
    order = torch.sort(place, stable=True).indices
    starts = sizes.cumsum(0) - sizes
    ranks = torch.empty_like(place)
    ranks[order] = torch.arange(len(place), device=place.device) - starts[place[order]]
    return ranks


def top_within(scores: torch.Tensor, place: torch.Tensor, quota: torch.Tensor) -> torch.Tensor:
    """Return the highest scores of every bin, ascending; ties keep the earlier.

    Parameters
    ----------
    scores : Tensor, (n,)
    place : Tensor, (n,) int64
        Bin of each token, 0..b-1.
    quota : Tensor, (b,) int64
        How many to keep of each bin.

    Returns
    -------
    Tensor, (sum of quota,) int64
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    ranks = torch.empty_like(order)
    ranks[order] = rank_within(place[order], torch.bincount(place, minlength=len(quota)))
    return (ranks < quota[place]).nonzero().flatten()


def spread_by_chunk(tokens: TokenMap, count: int) -> torch.Tensor:
    """Return `count` tokens evenly spaced per chunk and modality, ascending."""
    return spread(2 * tokens.chunk.long() + tokens.audio.long(), count)


def diversify(
    scores: torch.Tensor,
    chunks: torch.Tensor,
    drop: int,
    weight: float,
    *,
    scaled: bool,
) -> torch.Tensor:
    """Choose what to drop by relevance, sparing tokens far in time from the most relevant one.

    Temporal diversity of OmniDrop (arXiv 2605.14458): among the `2 · drop` least relevant tokens,
    add `weight · |c_max − c_i| / max(C)` and drop the `drop` lowest, where `c_max` is the chunk of
    the single most relevant token.

    The attention paid to one of n tokens averages at most 1/n, far under one chunk step of the
    added term, so with raw scores distance decides inside the candidate pool. `scaled` brings the
    candidates' relevance to [0, 1] first (ours).

    Parameters
    ----------
    scores : Tensor, (n,) float32
        Relevance.
    chunks : Tensor, (n,) int
        Chunk of each token, as fixed at input. max(C) is taken over these survivors.
    drop : int
        How many to drop, 0..n.
    weight : float
        Lambda.
    scaled : bool
        Min-max scale the candidates' relevance.

    Returns
    -------
    Tensor, (n − drop,) int64
        Indices of the tokens that stay, ascending.
    """
    ranked, order = torch.sort(scores, descending=True, stable=True)
    safe, pool = order.split([max(len(order) - 2 * drop, 0), min(2 * drop, len(order))])
    value = ranked[len(safe) :]
    if scaled and len(pool):
        high, low = value[0], value[-1]
        value = (value - low) / (high - low).clamp_min(torch.finfo(value.dtype).tiny)
    placed = chunks.index_select(0, order)
    apart = (placed[:1] - placed[len(safe) :]).abs() / chunks.max().clamp_min(1)
    value = value + weight * apart
    best = torch.sort(value, descending=True, stable=True).indices[: len(pool) - drop]
    return torch.cat((safe, pool.index_select(0, best))).sort().values
