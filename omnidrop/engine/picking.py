"""Selects a token from logits, greedily or by sampling, on any device and without synchronising.

A seed gives the same tokens on every device: the uniform random numbers are drawn on the CPU, one
per token, and a token is found by inverting the cumulative distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: Random numbers drawn at a time.
BLOCK = 1024


@dataclass(frozen=True)
class Picker:
    """Greedy selection, or sampling.

    Parameters
    ----------
    temperature : float
        0 is greedy; otherwise logits are divided by it and a token is drawn.
    top_p : float
        Draw from the smallest set of tokens whose probabilities sum to at least this, in (0, 1].
    top : int
        How many of the most probable tokens are told beside the selected one.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top: int = 0

    def __call__(self, logits: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
        """Select a token.

        Parameters
        ----------
        logits : Tensor, (V,) float32
        draw : Tensor, (1,) float32
            In [0, 1), on the device of the logits; not used by greedy selection.

        Returns
        -------
        Tensor, (1,) int64
        """
        if self.temperature == 0:
            return logits.argmax(-1, keepdim=True)
        probabilities = (logits.float() / self.temperature).softmax(-1)
        if self.top_p < 1:
            ordered, index = probabilities.sort(descending=True, stable=True)
            outside = ordered.cumsum(-1) - ordered >= self.top_p
            probabilities = torch.zeros_like(probabilities).scatter(
                0, index, ordered.masked_fill(outside, 0.0)
            )
        # In float64 the sums on two devices differ less than two draws do.
        ends = probabilities.double().cumsum(-1)
        return torch.searchsorted(ends, ends[-1:] * draw, right=True).clamp_(max=len(logits) - 1)

    def report(self, logits: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        """Return what is told of a selected token, as one row for one transfer.

        Parameters
        ----------
        logits : Tensor, (V,) float32
        token : Tensor, (1,) int64

        Returns
        -------
        Tensor, (2 + 2 * top,) float64
            The token, its log-probability at temperature 1, and the `top` most probable tokens with
            theirs.
        """
        logprobs = logits.log_softmax(-1)
        parts = [token.double(), logprobs.index_select(0, token).double()]
        if self.top:
            best = logprobs.topk(min(self.top, len(logprobs)))
            parts += [best.indices.double(), best.values.double()]
        return torch.cat(parts)


class Draws:
    """Uniform random numbers of a seed, the same however many are requested at a time.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._drawn = torch.empty(0)

    def __call__(self, first: int, count: int = 1) -> torch.Tensor:
        """Return the numbers `first` to `first + count` - 1, (count,) float32 on the CPU."""
        while len(self._drawn) < first + count:
            block = torch.rand(BLOCK, generator=self._generator)
            self._drawn = torch.cat([self._drawn, block])
        return self._drawn[first : first + count]
