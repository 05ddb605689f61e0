"""Farthest-point selection inside windows, all windows of one length at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: Pairwise distances held at once: 64 MB on a CPU; 512 MB on a GPU, where launches cost more.
_PAIRS = {"cpu": 16_000_000, "cuda": 128_000_000}


@dataclass(frozen=True)
class Windows:
    """Tokens in windows.

    Attributes
    ----------
    labels : Tensor, (w,) int64
        What sets each window apart, ascending.
    sizes : Tensor, (w,) int64
        Tokens per window.
    order : Tensor, (n,) int64
        Token indices, window by window, ascending inside each.
    """

    labels: torch.Tensor
    sizes: torch.Tensor
    order: torch.Tensor

    @classmethod
    def of(cls, label: torch.Tensor, tokens: torch.Tensor | None = None) -> Windows:
        """Put tokens with equal labels, (n,) int64 on the CPU, into one window.

        `tokens` are their indices, ascending; 0 to n − 1 if left out.
        """
        labels, sizes = torch.unique(label, return_counts=True)
        order = torch.sort(label, stable=True).indices
        return cls(labels, sizes, order if tokens is None else tokens[order])

    def alike(self, pairs: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the windows by length: their numbers, (b,), and their tokens, (b, length).

        Many windows come in several parts, each of at most `pairs` pairs of tokens.
        """
        starts = self.sizes.cumsum(0) - self.sizes
        found = []
        for size in torch.unique(self.sizes).tolist():
            which = (self.sizes == size).nonzero().flatten()
            rows = self.order[starts[which, None] + torch.arange(size)]
            step = max(pairs // (size * size), 1)
            found += list(zip(which.split(step), rows.split(step), strict=True))
        return found


def spread_out(
    embeds: torch.Tensor,
    weights: torch.Tensor,
    windows: Windows,
    quotas: torch.Tensor,
    places: torch.Tensor | None = None,
) -> torch.Tensor:
    """Keep the tokens of each window that lie farthest apart.

    Greedy max-min selection on `(1 − cosine + |difference of places|) · weight`: the first token is
    the one whose nearest neighbour is farthest, each next one the token farthest from all chosen
    ones. The distance to a token carries that token's weight. Of equals the first is taken.

    Parameters
    ----------
    embeds : Tensor, (N, D)
    weights : Tensor, (N,) float32
    windows : Windows
        Of the N tokens.
    quotas : Tensor, (w,) int64
        Tokens to keep per window, up to its size.
    places : Tensor, (N,) float32, optional
        Where tokens are in time, on the scale of 1 − cosine, on the device of `embeds`; left out,
        content alone counts.

    Returns
    -------
    Tensor, (n,) int64
        Ascending, on the CPU.
    """
    kept = []
    for which, rows in windows.alike(_PAIRS.get(embeds.device.type, _PAIRS["cpu"])):
        quota = quotas[which]
        if bool((quota == rows.shape[1]).all()):
            kept.append(rows.flatten())
            continue
        if not int(quota.max()):
            continue
        there = rows.to(embeds.device)
        where = None if places is None else places[there]
        chosen = _greedy(embeds[there], weights[there], where, int(quota.max())).cpu()
        taken = torch.arange(chosen.shape[1]) < quota[:, None]
        kept.append(torch.gather(rows, 1, chosen)[taken])
    return torch.cat(kept).sort().values


def _greedy(
    points: torch.Tensor, weights: torch.Tensor, places: torch.Tensor | None, count: int
) -> torch.Tensor:
    """Return the first `count` choices of each window, (b, n, D) → (b, count), in order."""
    unit = torch.nn.functional.normalize(points.float(), dim=-1)
    apart = unit @ unit.transpose(1, 2)
    apart.neg_().add_(1).clamp_min_(0)
    if places is not None:
        apart += (places[:, :, None] - places[:, None, :]).abs_()
    apart.mul_(weights[:, None, :])
    apart.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    nearest = apart.amin(dim=1)
    lane = torch.arange(len(points), device=points.device)
    chosen = []
    for step in range(count):
        best = nearest.argmax(dim=1)
        chosen.append(best)
        nearest = torch.minimum(nearest, apart[lane, best]) if step else apart[lane, best]
        nearest[lane, best] = -1.0  # distances are never negative, so it stays the least
    return torch.stack(chosen, dim=1)
