"""DASH: cut the clip where its audio changes, then let each segment's audio guide its video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.functional import normalize

from omnidrop.pruning import checks
from omnidrop.pruning.method import EntryView
from omnidrop.pruning.parts.audio_guided import Guided, Path
from omnidrop.pruning.parts.frames import Frames

# From the public code.
_WEIGHTS = (0.4, 0.3, 0.3)  # boundary, uniqueness, encoder attention
_LOWEST, _HIGHEST = 0.1, 0.95
_WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
_TINY = 1e-6


@dataclass(frozen=True)
class Dash(Guided):
    """Keeps audio by change, uniqueness and attention, and video by segments of the audio.

    Based on DASH (https://arxiv.org/abs/2603.15685) and its public code.

    Published:

    - Segments: a new one starts where the cosine of an audio token to the one before is under 0.4,
      at least 30 tokens after the last cut. Cuts are carried over to video in proportion to length.
    - Audio: score = 0.4 · boundary + 0.3 · uniqueness + 0.3 · attention. Boundary is (1 − cosine to
      the token before) / 2, 1 for the first; boundary and attention are divided by their highest
      value. Uniqueness is 1 − similarity to the mean of the unit vectors, over the half of the
      channels that vary least: a sum of Gaussians of five widths, divided by its highest value.
      Anchors take in three tokens each, as in OmniZip (see `audio_guided.merge_audio`).
    - A segment's video pruning rate is that of the clip + 0.1 · (0.5 − share of its audio that
      stays), clamped to [0.1, 0.95].
    - Frames (temporal grids) in pairs: even frames keep the tokens least like their five nearest,
      odd frames those least like the same place in the frame before.

    Ours: cuts of video are rounded to whole frames, and a segment of one frame is pruned too; the
    number of tokens is met exactly, by one factor over all frames; without audio there is one
    segment.

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
        notes it where the realised mean differs (paper preset).
    rho_a, rho_v : float, default 0.45 and 0.76
        Pruning rates of audio (without anchors) and video (public code). With `solve` they only
        set how audio and video share the budget: below these rates' total both are scaled, above
        it both approach 1 (ours).
    threshold : float, default 0.4
        Cosine under which the sound changes (paper).
    shortest : int, default 30
        Fewest audio tokens between two cuts (paper).
    guidance : float, default 0.1
        How far a segment's rate follows its audio (paper).
    neighbours : int, default 5
        Tokens that spatial likeness looks at (public code).
    """

    name: ClassVar[str] = "dash"

    rho_a: float = 0.45
    rho_v: float = 0.76
    threshold: float = 0.4
    shortest: int = 30
    guidance: float = 0.1
    neighbours: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("rho_a", self.rho_a, low=0, high=1)
        checks.number("rho_v", self.rho_v, low=0, high=1)
        checks.number("threshold", self.threshold, low=-1, high=1)
        checks.whole("shortest", self.shortest, low=1)
        checks.number("guidance", self.guidance, low=0)
        checks.whole("neighbours", self.neighbours, low=1)

    @classmethod
    def presets(cls) -> dict[str, Dash]:
        """Return its evaluation's setting, which keeps 29 % where one token in seven is audio."""
        return {"dash-29": cls(budget=0.29, solve=False)}

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {
            "rho_a": (0.1, 0.3, 0.45, 0.6, 0.8),
            "threshold": (0.2, 0.4, 0.6),
            "guidance": (0.0, 0.1, 0.3),
        }

    def rates(self) -> tuple[float, float]:
        """Return both rates."""
        return self.rho_a, self.rho_v

    def path(self) -> Path:
        """Return the line through the pair of rates."""
        knot = (min(1 - self.rho_a + self.contextual, 1.0), 1 - self.rho_v)
        return (0.0, 0.0), knot, (1.0, 1.0)

    def scores(self, view: EntryView, audio: torch.Tensor) -> torch.Tensor:
        """Return boundary, uniqueness and attention in one score."""
        rows = view.embeds[audio.to(view.embeds.device)].float()
        if not len(rows):
            return torch.empty(0)
        change = ((1 - _steps(rows)) / 2).clamp(0, 1)
        change = torch.cat((change.new_ones(1), change)).cpu()
        first, second, third = _WEIGHTS
        score = first * change / (change.max() + _TINY) + second * _uniqueness(rows).cpu()
        if view.audio_attention is None:
            return score
        received = view.audio_attention.float().cpu()
        return score + third * received / (received.max() + _TINY)

    def windows(
        self, view: EntryView, audio: torch.Tensor, frames: Frames
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the segment of each."""
        count = len(audio)
        if not count:
            return audio, torch.zeros_like(frames.sizes)
        steps = _steps(view.embeds[audio.to(view.embeds.device)].float()).cpu()
        cuts: list[int] = []
        for place in ((steps < self.threshold).nonzero().flatten() + 1).tolist():
            if place - (cuts[-1] if cuts else 0) >= self.shortest:
                cuts.append(place)
        audio_cuts = torch.tensor(cuts, dtype=torch.int64)
        frame_cuts = (2 * audio_cuts * len(frames) + count) // (2 * count)
        return (
            torch.searchsorted(audio_cuts, torch.arange(count), right=True),
            torch.searchsorted(frame_cuts, torch.arange(len(frames)), right=True),
        )

    def window_rates(
        self, kept: torch.Tensor, sizes: torch.Tensor, guided: torch.Tensor, target: float
    ) -> torch.Tensor:
        """Prune less where more audio stays."""
        lean = torch.where(guided, 0.5 - kept, 0.0)
        return (target + self.guidance * lean).clamp(_LOWEST, _HIGHEST)

    def spatial(self, units: torch.Tensor) -> torch.Tensor:
        """Return how unlike its nearest tokens each token is."""
        size = units.shape[1]
        if size == 1:
            return units.new_ones(units.shape[:2])
        alike = units @ units.transpose(1, 2)
        alike.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        return -alike.topk(min(self.neighbours, size - 1), dim=2).values.mean(2)


def _steps(rows: torch.Tensor) -> torch.Tensor:
    """Return the cosine of each row to the one before, (n − 1,)."""
    units = normalize(rows, dim=-1)
    return (units[:-1] * units[1:]).sum(-1)


def _uniqueness(rows: torch.Tensor) -> torch.Tensor:
    """Return 1 − Gaussian similarity of each row to the mean direction, (n,)."""
    width = rows.shape[1]
    if width > 10:
        calm = torch.sort(rows.var(0, unbiased=False), stable=True).indices[: width // 2]
        rows = rows[:, calm]
    units = normalize(rows, dim=-1)
    apart = (units - units.mean(0)).square().sum(-1)
    alike = torch.stack([(-apart / (2 * w)).exp() for w in _WIDTHS]).sum(0)
    highest = alike.max()
    return 1 - torch.where(highest > _TINY, alike / highest, alike)
