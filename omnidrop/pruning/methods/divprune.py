"""DivPrune: keep the tokens that are least alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch.nn.functional import normalize

from omnidrop.pruning.method import Entry, EntryView, Plan
from omnidrop.pruning.parts.entry_only import EntryMethod
from omnidrop.pruning.parts.select import shares

#: Similarities held at once: up to 16384 tokens the whole matrix, 1 GiB, else one row per pick.
_WHOLE = 2**28
_BLOCK = 512


@dataclass(frozen=True)
class DivPrune(EntryMethod):
    """Keeps the audio and video tokens whose smallest distance to one another is greatest.

    Based on DivPrune (https://arxiv.org/abs/2503.02175) and its public code.

    Published: cosine distance, greedy max-min selection, started with the token whose nearest
    neighbour is farthest, over the tokens of one image.

    Ours: one pool of audio and video over the whole clip. It needs the distance of every pair
    once, N² · D / 2 multiplications, whatever the budget.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    scope : {"clip", "chunk"}, default "clip"
        Pool the whole clip, or every chunk by itself with the same share kept of each (ours):
        cheaper by the number of chunks, and blind to repeats between them.
    """

    name: ClassVar[str] = "divprune"

    scope: Literal["clip", "chunk"] = "clip"

    def __post_init__(self) -> None:
        super().__post_init__()

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {"scope": ("clip", "chunk")}

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Choose the most diverse tokens."""
        total, count = plan.total, plan.counts[0]
        if count == total:
            return Entry(torch.arange(total))
        if self.scope == "clip":
            return Entry(max_min(view.embeds, count))
        order = torch.sort(view.tokens.chunk, stable=True).indices
        sizes = torch.unique(view.tokens.chunk, return_counts=True)[1]
        kept = [
            rows[max_min(view.embeds[rows.to(view.embeds.device)], part)]
            for rows, part in zip(
                order.split(sizes.tolist()), shares(sizes, count).tolist(), strict=True
            )
        ]
        return Entry(torch.cat(kept).sort().values)


def max_min(embeds: torch.Tensor, count: int) -> torch.Tensor:
    """Choose `count` rows greedily, each the farthest by cosine from those chosen before.

    Parameters
    ----------
    embeds : Tensor, (n, D)
    count : int
        0..n.

    Returns
    -------
    Tensor, (count,) int64
        Ascending, on the CPU. Equal distances keep the earlier row.
    """
    total = len(embeds)
    if count == 0:
        return torch.empty(0, dtype=torch.int64)
    units = normalize(embeds.float(), dim=-1)
    alike = units.new_empty(total, total) if total * total <= _WHOLE else None
    nearest = units.new_full((total,), -torch.inf)
    for first in range(0, total, _BLOCK):
        block = slice(first, first + _BLOCK)
        part = units[block] @ units[first:].T  # a pair is multiplied once
        if alike is not None:
            alike[block, first:] = part
            alike[first:, block] = part.T
        part.fill_diagonal_(-torch.inf)
        nearest[first:] = torch.maximum(nearest[first:], part.amax(0))
        nearest[block] = torch.maximum(nearest[block], part.amax(1))

    # Everything stays on the device: no pick waits for the one before to be read.
    chosen = []
    pick = nearest.argmin().view(1)
    closest = torch.full_like(nearest, -torch.inf)
    for _ in range(count):
        chosen.append(pick)
        row = units @ units[pick][0] if alike is None else alike.index_select(0, pick)[0]
        closest = torch.maximum(closest, row).index_fill_(0, pick, torch.inf)
        pick = closest.argmin().view(1)
    return torch.cat(chosen).cpu().sort().values
