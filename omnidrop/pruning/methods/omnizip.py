"""OmniZip: how much audio is kept decides how much video is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from omnidrop.errors import UsageError
from omnidrop.pruning import checks
from omnidrop.pruning.method import EntryView
from omnidrop.pruning.parts.audio_guided import Guided, Path
from omnidrop.pruning.parts.frames import Frames

_LEAST, _MOST = 0.35, 0.75  # video pruning rates where all, or none, of the audio stays (paper)


@dataclass(frozen=True)
class OmniZip(Guided):
    """Keeps audio by its encoder's attention, and more video where more audio is kept.

    Based on OmniZip (https://arxiv.org/abs/2511.14582) and its public code.

    Published:

    - Audio: the tokens with the highest attention received stay; of the others, evenly spaced
      anchors take in the three most like any video token (see `audio_guided.merge_audio`).
    - Windows are chunks. The video pruning rate is 0.75 − 0.40 · (share of the window's audio that
      stays, anchors too). Then, except in the windows with the lowest and the highest rate, rates
      are scaled, and shifted, to meet the rate of the whole clip, clamped to [0.35, 0.75] each
      time. A window without audio has the rate of the clip.
    - Frames (temporal grids) in pairs: even frames keep density peaks (exp of minus the mean
      distance to 5 neighbours, times the distance to the nearest denser token), odd frames the
      tokens least like the same place in the frame before.

    Ours: how audio and video share a budget that the paper does not print (see `rho_a`); the number
    of tokens is met exactly, by one factor over all frames; where the clip's rate is outside
    [0.35, 0.75] there is no scaling and no clamp.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    contextual : float, default 0.05
        Anchors, as a share of all audio tokens (paper); at most half of the audio kept (ours).
    group : int, default 3
        Tokens merged into one anchor, at most (paper).
    solve : bool, default True
        False: take `rho_a` and `rho_v` as they stand; `budget` is then only a name, and the plan
        notes it where the realised mean differs (paper presets).
    rho_a, rho_v : float, optional
        Pruning rates of audio (without anchors) and video, both or neither. With `solve` they only
        set how audio and video share the budget: below these rates' total both are scaled, above
        it both approach 1. Without them the line goes through both of the paper's pairs.
    neighbours : int, default 5
        Neighbours that a token's density looks at (paper).
    """

    name: ClassVar[str] = "omnizip"

    rho_a: float | None = None
    rho_v: float | None = None
    neighbours: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("neighbours", self.neighbours, low=1)
        for field, rate in (("rho_a", self.rho_a), ("rho_v", self.rho_v)):
            if rate is not None:
                checks.number(field, rate, low=0, high=1)
        if (self.rho_a is None) != (self.rho_v is None) or (self.rho_a is None and not self.solve):
            raise UsageError(
                "OmniZip needs both rho_a and rho_v here.",
                hint="Give both, or leave both out and solve on.",
            )

    @classmethod
    def presets(cls) -> dict[str, OmniZip]:
        """Return the paper's two settings, which keep 45 % and 35 % where one in seven is audio."""
        return {
            f"omnizip-{round(100 * budget)}": cls(budget, rho_a=a, rho_v=v, solve=False)
            for budget, (a, v) in _PAPER.items()
        }

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {
            "rho_a": (None, 0.1, 0.3, 0.5, 0.7, 0.9),
            "rho_v": (None, 0.6),  # with rho_a, only their proportion counts
            "contextual": (0.0, 0.05, 0.1),
        }

    def rates(self) -> tuple[float, float] | None:
        """Return the rates that are given."""
        if self.rho_a is None or self.rho_v is None:
            return None
        return self.rho_a, self.rho_v

    def path(self) -> Path:
        """Return the line through the paper's pairs, or through the one that is given."""
        given = self.rates()
        pairs = sorted(_PAPER.values(), reverse=True) if given is None else [given]
        knots = ((min(1 - a + self.contextual, 1.0), 1 - v) for a, v in pairs)
        return ((0.0, 0.0), *knots, (1.0, 1.0))

    def scores(self, view: EntryView, audio: torch.Tensor) -> torch.Tensor | None:
        """Return the attention that the encoder paid to each token."""
        return None if view.audio_attention is None else view.audio_attention.float().cpu()

    def windows(
        self, view: EntryView, audio: torch.Tensor, frames: Frames
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the chunk of each."""
        audio_chunks = view.tokens.chunk.cpu()[audio].long()
        number = torch.unique(torch.cat((audio_chunks, frames.chunk)), return_inverse=True)[1]
        return number[: len(audio_chunks)], number[len(audio_chunks) :]

    def window_rates(
        self, kept: torch.Tensor, sizes: torch.Tensor, guided: torch.Tensor, target: float
    ) -> torch.Tensor:
        """Prune less where more audio stays, and come near the target in the published way."""
        rates = (_MOST - (_MOST - _LEAST) * kept).clamp(_LEAST, _MOST)
        led = (guided & (sizes > 0)).nonzero().flatten()
        rates[~guided] = target
        if len(led) <= 2 or not _LEAST <= target <= _MOST:
            return rates
        by_rate = led[torch.sort(rates[led], stable=True).indices]
        ends, inner = by_rate[[0, -1]], by_rate[1:-1]
        dropped = target * sizes[led].sum() - (rates[ends] * sizes[ends]).sum()
        rates[inner] *= dropped / (rates[inner] * sizes[inner]).sum()
        rates[inner] = rates[inner].clamp(_LEAST, _MOST)
        missing = dropped - (rates[inner] * sizes[inner]).sum()
        rates[inner] = (rates[inner] + missing / sizes[inner].sum()).clamp(_LEAST, _MOST)
        return rates

    def spatial(self, units: torch.Tensor) -> torch.Tensor:
        """Return how much of a density peak each token is."""
        return density_peaks(units, self.neighbours)


def density_peaks(units: torch.Tensor, neighbours: int) -> torch.Tensor:
    """Return density times the distance to the nearest denser token, by cosine.

    Parameters
    ----------
    units : Tensor, (b, n, D)
        Unit vectors.
    neighbours : int
        Nearest tokens whose mean distance d gives the density, exp(−d).

    Returns
    -------
    Tensor, (b, n)
        The densest token takes the distance to the farthest one.
    """
    size = units.shape[1]
    if size == 1:
        return units.new_ones(units.shape[:2])
    apart = 1 - units @ units.transpose(1, 2)
    farthest = apart.diagonal_scatter(apart.new_zeros(units.shape[:2]), dim1=1, dim2=2).amax(2)
    apart.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    near = apart.topk(min(neighbours, size - 1), dim=2, largest=False).values
    density = (-near.mean(2)).exp()
    denser = density[:, None, :] > density[:, :, None]
    gap = apart.masked_fill(~denser, torch.inf).amin(2)
    return density * torch.where(gap.isinf(), farthest, gap)


#: Share that the paper names → rho_a, rho_v.
_PAPER = {0.45: (0.3, 0.6), 0.35: (0.4, 0.7)}
