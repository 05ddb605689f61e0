"""Whether the ranking of the tokens by attention has stopped changing: the signal of ASL.

ASL (arXiv 2601.07667) was made for text: one selection layer per sample, where the ranks of the
tokens by attention stop moving. Window and threshold are the paper's. Ours: ranks of all audio and
video tokens alive, variance over the window's layers, mean over the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

#: Layers in a window (paper), and the depth from which it is that many (ours).
WINDOW, DEPTH = 8, 28
#: Fraction of its first value under which the variance counts as settled (paper).
THRESHOLD = 0.3


def window(layers: int) -> int:
    """Return how many layers a window has: 8 from 28 layers on, the same share of fewer (ours).

    A window of 8 would leave a shallow model no second one to compare with before half its depth.
    """
    return max(2, min(WINDOW, round(WINDOW / DEPTH * layers)))


@dataclass
class RankMovement:
    """How much the ranks of the same tokens change from layer to layer.

    Parameters
    ----------
    size : int
        Layers in the window.
    """

    size: int
    _ranks: list[torch.Tensor] = field(default_factory=list)
    _first: float | None = None

    def add(self, scores: torch.Tensor) -> float | None:
        """Take one more layer's scores, (n,).

        Returns
        -------
        float or None
            Variance over the last window divided by that over the first; None before a window is
            full. 0 where nothing ever moved.
        """
        order = torch.sort(scores, descending=True, stable=True).indices
        ranks = torch.empty_like(order)
        ranks[order] = torch.arange(len(order), device=order.device)
        self._ranks = [*self._ranks, ranks][-self.size :]
        if len(self._ranks) < self.size:
            return None
        variance = float(torch.stack(self._ranks).double().var(0, correction=0).mean())
        if self._first is None:
            self._first = variance
        return variance / self._first if self._first else 0.0
