"""How much audio and video change: inside a run of tokens, and from one run to the next."""

from __future__ import annotations

import torch

from omnidrop.pruning.parts.frames import likeness

#: Tokens summed at once: bounds the float32 copies.
_BLOCK = 512

#: Changes that lie closer together than this are the same: it is rounding that tells them apart.
_SAME = 1e-6


def neighbours(run: torch.Tensor) -> torch.Tensor:
    """Return the token before each token in its run, (n,) int64; -1 for the first.

    Parameters
    ----------
    run : Tensor, (n,) int64
        Run of each token, never falling.
    """
    before = torch.arange(len(run)) - 1
    first = torch.ones(len(run), dtype=torch.bool)
    first[1:] = run[1:] != run[:-1]
    return torch.where(first, -1, before)


def mean_change(
    embeds: torch.Tensor, index: torch.Tensor, twins: torch.Tensor, run: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean of 1 − cosine of the tokens of each run to their twins.

    Parameters
    ----------
    embeds : Tensor, (N, D)
    index : Tensor, (n,) int64
        Rows of `embeds` that the tokens are.
    twins : Tensor, (n,) int64
        Indices into `index`, or -1.
    run : Tensor, (n,) int64
        Run of each token.
    count : int
        Runs, r.

    Returns
    -------
    Tensor, (r,) float64
        0 for a run without a twin; on the CPU.
    Tensor, (r,) bool
        Whether the run has any.
    """
    there = twins >= 0
    change = 1 - likeness(embeds, index, twins)[there].double()
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, run[there], change)
    compared = torch.bincount(run[there], minlength=count)
    return sums / compared.clamp_min(1), compared > 0


def means(embeds: torch.Tensor, index: torch.Tensor, run: torch.Tensor, count: int) -> torch.Tensor:
    """Return the mean embedding of each run, (r, D) float32 where `embeds` are; 0 without tokens.

    The arguments are those of `mean_change`.
    """
    device = embeds.device
    sums = torch.zeros(count, embeds.shape[1], device=device)
    for rows, into in zip(index.split(_BLOCK), run.split(_BLOCK), strict=True):
        sums.index_add_(0, into.to(device), embeds[rows.to(device)].float())
    sizes = torch.bincount(run, minlength=count).clamp_min(1)
    return sums / sizes.to(device)[:, None]


def steps(centres: torch.Tensor) -> torch.Tensor:
    """Return 1 − cosine of each row to the one before, (r, D) → (r,) float64 on the CPU.

    The first row has none before it and takes the step to the second; 0 where it is alone.
    """
    if len(centres) < 2:
        return torch.zeros(len(centres), dtype=torch.float64)
    apart = 1 - torch.cosine_similarity(centres[1:], centres[:-1], dim=-1).double().cpu()
    return torch.cat((apart[:1], apart))


def scaled(values: torch.Tensor) -> torch.Tensor:
    """Bring values to [0, 1] by the lowest and the highest; ½ where all are the same."""
    if not len(values):
        return values
    low, high = values.min(), values.max()
    if high - low < _SAME:
        return torch.full_like(values, 0.5)
    return (values - low) / (high - low)
