"""A-PACK: all audio, few video tokens, then a little less in every layer of the second half."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.functional import normalize

from omnidrop.errors import UsageError
from omnidrop.pruning import checks, schedules
from omnidrop.pruning.method import (
    CachePolicy,
    Entry,
    EntryView,
    LayerMethod,
    LayerView,
    Part,
    Plan,
)
from omnidrop.pruning.parts.farthest_point import Windows, spread_out
from omnidrop.pruning.parts.frames import Frames
from omnidrop.pruning.parts.select import even, shares, top
from omnidrop.tokens import TokenMap

#: Layers → first layer, 0-based, after which tokens are dropped (published for 7B and 3B).
STARTS = {28: 14, 36: 18}

#: Share that enters and rate per layer, published for the tiers of 35 and 25 %; the ends are ours.
TIERS = ((1.0, 0.0), (0.50, 0.10), (0.35, 0.15))

#: Frames in a segment at most, which bounds the distances held at once (ours).
_LONGEST = 8
_NEIGHBOURS = 5
_TINY = 1e-12


@dataclass(frozen=True)
class APack(LayerMethod):
    """Keeps audio whole and distinct video at entry, then drops by the last token's attention.

    Based on A-PACK (https://arxiv.org/abs/2608.08794), of which only a summary was at hand and no
    code is public.

    Published: all audio stays before the LLM, since an audio token moves the answer far more than a
    video token; video is divided into segments where the linear CKA of neighbouring frames falls
    under 0.97, and of each segment farthest-point sampling that minds density keeps anchors; from
    layer 14 of 28 (18 of 36) on, 10 % of what is left goes after every layer in the 35 % tier,
    where half of the tokens enter, and 15 % in the 25 % tier, where 35 % enter; the score is the
    attention of the last token, and the caches of earlier layers are cut to the survivors.

    Ours: its gate over three frames is left out, since the summary does not say what it gates. A
    segment has at most eight frames. Density is the mean cosine to the five nearest tokens of the
    segment, between 0 and 1, and multiplies the distance. Segments keep equal shares of their
    tokens. For other depths tokens are dropped from half of the layers on. One budget gives the
    share that enters and the rate: on straight lines from (1, 0) through both tiers, and below them
    at the second tier's rate. Video never gets less than half of its proportional part, so that a
    clip with more audio than video keeps some of both.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    cache : {"own", "cut"}, default "cut"
        Caches of earlier layers: each layer's own, or cut to the survivors (published).
    enters : float, optional
        Share that enters; solved for the budget if left out. Given with `rate`.
    rate : float, optional
        Share of what is left that goes after every layer from `since` on.
    since : int, optional
        First layer, 0-based, after which tokens are dropped.
    alike : float, default 0.97
        Linear CKA under which a segment ends (published).
    """

    name: ClassVar[str] = "apack"
    used_by: ClassVar[Mapping[str, frozenset[Part]]] = {
        "enters": frozenset({Part.SCHEDULE}),
        "rate": frozenset({Part.SCHEDULE}),
        "since": frozenset({Part.SCHEDULE}),
        "alike": frozenset({Part.ENTRY}),
    }
    needs_host: ClassVar[str] = ""

    cache: CachePolicy = "cut"
    enters: float | None = None
    rate: float | None = None
    since: int | None = None
    alike: float = 0.97

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.enters is None) != (self.rate is None):
            raise UsageError("enters and rate go together.", hint="Give both, or none of them.")
        if self.enters is not None and self.rate is not None:
            checks.number("enters", self.enters, low=1e-6, high=1)
            checks.number("rate", self.rate, low=0, high=1)
        if self.since is not None:
            checks.whole("since", self.since, low=0)
        checks.number("alike", self.alike, low=0, high=1)

    @classmethod
    def presets(cls) -> dict[str, APack]:
        """Return the published tiers; their means over 28 layers are 0.389 and 0.251."""
        (_, _), high, low = TIERS
        return {
            "apack-35": cls(budget=0.35, enters=high[0], rate=high[1]),
            "apack-25": cls(budget=0.25, enters=low[0], rate=low[1]),
        }

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {"alike": (0.9, 0.97, 1.0)}

    def parts(self) -> frozenset[Part]:
        """Return all parts; a given share fixes how many tokens enter."""
        return super().parts() if self.enters is None else super().parts() - {Part.ENTRY}

    def curve(self, enters: float, rate: float, layers: int) -> schedules.Curve:
        """Return the schedule of a share that enters and a rate."""
        start = STARTS.get(layers, layers // 2) if self.since is None else self.since
        # So steep that it is a step in the rate: nothing before `start`, `rate` from it on.
        turn = (start - 0.5) / layers
        return schedules.Curve("sigmoid", enters, 0.0, rate, turn, beta=1e4)

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Solve the share that enters and the rate, or take those that were given."""
        total = len(tokens)
        if self.enters is not None and self.rate is not None:
            curve = self.curve(self.enters, self.rate, layers)
            return schedules.fixed(curve, total, layers, self.budget)
        path = [self.curve(*tier, layers) for tier in (*TIERS, (0.0, TIERS[-1][1]), (0.0, 1.0))]
        last = schedules.Curve("step", entry_ratio=0.0, p_final=1.0, t_mid=0.0)
        return schedules.solve(self.budget, total, layers, (*path, last))

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Keep audio, and of video what lies farthest apart in each segment."""
        total, count = plan.total, plan.counts[0]
        if count == total:
            return Entry(torch.arange(total))
        audio = view.tokens.audio.cpu().nonzero().flatten()
        video = view.tokens.video.cpu().nonzero().flatten()
        least = min(round(0.5 * count * len(video) / total), count)
        n_video = min(max(count - len(audio), least), len(video))
        n_video = max(n_video, count - len(audio))
        kept = self._anchors(view, video, n_video)
        heard = audio[even(len(audio), count - n_video)]
        return Entry(torch.cat((heard, kept)).sort().values)

    def keep(self, view: LayerView, count: int) -> torch.Tensor:
        """Keep the tokens that the last token of the prompt attends to most."""
        return top(view.attention("last"), count)

    def _anchors(self, view: EntryView, video: torch.Tensor, count: int) -> torch.Tensor:
        """Return `count` of the video tokens, as indices into the clip's tokens."""
        if count >= len(video) or not count:
            return video[:count]
        frames = Frames.of(view.tokens.select(video))
        segment = segments(view.embeds, video, frames, self.alike)[frames.frame]
        windows = Windows.of(segment, video)
        weights = torch.ones(len(view.embeds), device=view.embeds.device)
        for _, rows in windows.alike(16_000_000):
            there = rows.to(view.embeds.device)
            weights[there.flatten()] = density(view.embeds[there]).flatten()
        return spread_out(view.embeds, weights, windows, shares(windows.sizes, count))


def density(points: torch.Tensor) -> torch.Tensor:
    """Return how close its nearest neighbours are to each point, (b, n, D) → (b, n) in [0, 1]."""
    count = points.shape[1]
    if count == 1:
        return points.new_ones(points.shape[:2], dtype=torch.float32)
    units = normalize(points.float(), dim=-1)
    near = units @ units.transpose(1, 2)
    near.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    return (1 + near.topk(min(_NEIGHBOURS, count - 1), dim=2).values.mean(2)).clamp(0, 2) / 2


def segments(
    embeds: torch.Tensor, index: torch.Tensor, frames: Frames, alike: float
) -> torch.Tensor:
    """Return the segment of each frame, (f,) int64: a new one where neighbours differ.

    Parameters
    ----------
    embeds : Tensor, (N, D)
    index : Tensor, (n,) int64
        Rows of `embeds` that the video tokens are.
    frames : Frames
    alike : float
        Linear CKA (Kornblith et al. 2019, https://arxiv.org/abs/1905.00414) under which a frame
        begins a segment. Frames of different sizes do too.
    """
    begins = torch.zeros(len(frames), dtype=torch.int64)
    before: torch.Tensor | None = None
    length = 0
    order = torch.sort(frames.frame, stable=True).indices
    rows = index[order].split(frames.sizes.tolist())
    for number, own in enumerate(rows):
        gram = _gram(embeds[own.to(embeds.device)])
        if before is not None and before.shape == gram.shape and length < _LONGEST:
            begins[number] = int(float(_cka(before, gram)) < alike)
        else:
            begins[number] = int(number > 0)
        length = 1 if begins[number] or not number else length + 1
        before = gram
    return begins.cumsum(0)


def _gram(rows: torch.Tensor) -> torch.Tensor:
    """Return the products of the centred rows with one another."""
    centred = rows.float() - rows.float().mean(0)
    return centred @ centred.T


def _cka(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the linear CKA of two grams; 1 where neither frame holds anything but one value."""
    norm = a.norm() * b.norm()
    return torch.where(norm > _TINY, (a * b).sum() / norm.clamp_min(_TINY), torch.ones_like(norm))
