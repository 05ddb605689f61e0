"""SEATS: diverse tokens before the LLM, the question's choice in the middle, none at the end.

Before the LLM each short window keeps the tokens that differ most from one another. Past half the
depth the last text token's attention decides in three steps, and late layers see text alone.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch

from omnidrop.errors import UsageError
from omnidrop.pruning import checks, schedules
from omnidrop.pruning.method import (
    CachePolicy,
    Entry,
    EntryView,
    LayerMethod,
    LayerView,
    Need,
    Part,
    Plan,
)
from omnidrop.pruning.parts.farthest_point import Windows, spread_out
from omnidrop.pruning.parts.select import even, rank_within, shares
from omnidrop.tokens import TokenMap

#: Target shares of video and audio, published for the 7B under the names 10, 15, 25 and 35, which
#: are also their means where six tokens in seven are video. The two ends are ours.
PAIRS = ((0.0, 0.0), (0.06, 0.35), (0.10, 0.45), (0.20, 0.55), (0.30, 0.65), (1.0, 1.0))

#: Layers → after which of them tokens are dropped, and how many see any (published, 1-based).
DEPTHS = {28: ((16, 18, 20), 23), 48: ((27, 31, 35), 39)}

#: Layers → temperature over the windows (public code); that of 28 for others.
TEMPERATURES = {28: 0.1, 48: 0.3}


@dataclass(frozen=True)
class Seats(LayerMethod):
    """Keeps diverse tokens per window, drops by the last token's attention, ends without any.

    Based on SEATS (https://arxiv.org/abs/2605.20035) and its public code.

    Published: the windows, the selection at entry, the target shares of the 7B model at 35, 25, 15
    and 10 %, the depths for 28 and 48 layers, the split of the drops, and the budgets of windows
    and modalities.

    Ours: one budget b gives both target shares, which lie on straight lines between the published
    pairs, where their mean over this clip's tokens is b. Above what the removal of everything in
    late layers leaves room for, that layer moves towards the last, so that 1 keeps everything. What
    is published is taken as it is while it realises b to a hundredth of b. Otherwise the search for
    the total drop counts whole tokens, and where no drop suffices the windows keep more or fewer at
    entry.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    cache : {"own", "cut"}, default "cut"
        Caches of earlier layers: each layer's own, or cut to the survivors (published), so that
        decoding sees text only.
    ratios : (float, float), optional
        Target shares of video and audio, taken as they stand; `budget` is then only a name.
    scale : float, default 1.4
        Share kept at entry over the target share (published).
    grids : int, default 2
        Temporal grids of video in a window (published); a window of audio is a chunk.
    after : sequence of int or float, optional
        Layers after which tokens are dropped: whole numbers are layers, counted from 1; fractions
        are shares of the depth. Published for 28 and 48 layers, the 28's shares for others (ours).
        Steps that fall on one layer are one drop.
    late : int or float, optional
        Layers that see any AV token (published: 23 of 28, 39 of 48), or their share.
    temperature : float, optional
        Of the softmax over the windows' mean scores. Published for 28 layers (0.1) and 48 (0.3),
        the 28's for others (ours).
    split : {"demand", "mass"}, default "demand"
        What divides a window between video and audio: each modality's weight of the window times
        its share of what is kept (public code), or the sums of the scores (ours).
    """

    name: ClassVar[str] = "seats"
    needs_host: ClassVar[str] = "budgets of windows levelled one token at a time"
    wants: ClassVar[frozenset[str]] = frozenset({Need.VIDEO_ATTENTION})

    used_by: ClassVar[Mapping[str, frozenset[Part]]] = {
        "ratios": frozenset({Part.ENTRY, Part.SCHEDULE}),
        "scale": frozenset({Part.ENTRY, Part.SCHEDULE}),
        "grids": frozenset({Part.ENTRY, Part.SCHEDULE}),
        "after": frozenset({Part.SCHEDULE}),
        "late": frozenset({Part.SCHEDULE}),
        "temperature": frozenset({Part.LAYERS}),
        "split": frozenset({Part.LAYERS}),
    }

    cache: CachePolicy = "cut"
    ratios: tuple[float, float] | None = None
    scale: float = 1.4
    grids: int = 2
    after: tuple[int | float, ...] | None = None
    late: int | float | None = None
    temperature: float | None = None
    split: Literal["demand", "mass"] = "demand"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("ratios", "after"):  # JSON has lists only
            value = getattr(self, field)
            if isinstance(value, list):
                object.__setattr__(self, field, tuple(value))
            elif value is not None and not isinstance(value, tuple):
                raise UsageError(f"{field} must be a list of numbers, not {value!r}.")
        if self.ratios is not None:
            if len(self.ratios) != 2:
                raise UsageError("ratios must be two numbers: the shares of video and of audio.")
            for value in self.ratios:
                checks.number("ratios", value, low=1e-6, high=1)
        for place in (*(self.after or ()), *(() if self.late is None else (self.late,))):
            if isinstance(place, float):
                checks.number("after and late (shares of the depth)", place, low=0, high=1)
            else:
                checks.whole("after and late (layers)", place, low=1)
        checks.number("scale", self.scale, low=1)
        checks.whole("grids", self.grids, low=1)
        if self.temperature is not None:
            checks.number("temperature", self.temperature, low=1e-4)

    @classmethod
    def presets(cls) -> dict[str, Seats]:
        """Return the published target shares by name: seats-35, seats-25, seats-15, seats-10."""
        named = zip((0.10, 0.15, 0.25, 0.35), PAIRS[1:-1], strict=True)
        return {f"seats-{round(100 * b)}": cls(budget=b, ratios=pair) for b, pair in named}

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {
            "after": (None, (0.3, 0.35, 0.4), (0.45, 0.5, 0.55), (0.7, 0.75, 0.8)),
            "late": (None, 0.7, 0.9, 1.0),
            "scale": (1.2, 1.4, 1.8),
        }

    def parts(self) -> frozenset[Part]:
        """Return all parts; given shares of video and audio fix how many tokens enter."""
        return super().parts() if self.ratios is None else super().parts() - {Part.ENTRY}

    def depths(self, layers: int) -> tuple[tuple[int, ...], int]:
        """Return after which layers, counted from 1, tokens are dropped, and how many see any."""
        own = DEPTHS.get(layers)
        published: tuple[tuple[int | float, ...], int | float] = own or (
            tuple(step / 28 for step in DEPTHS[28][0]),
            DEPTHS[28][1] / 28,
        )
        steps = published[0] if self.after is None else self.after
        late = published[1] if self.late is None else self.late
        last = min(max(_layer(late, layers), 1), layers)
        return tuple(sorted(i for i in (_layer(s, layers) for s in steps) if i < last)), last

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Choose both target shares, then the total drop, so that the mean is the budget."""
        if not len(tokens):
            return Plan(0, (0,) * layers, {"note": "no audio or video tokens"})
        entry = _Quotas.of(tokens, self.grids, self.scale)
        steps, late = self.depths(layers)
        size = len(tokens) * layers
        wanted = self.budget * size
        target = math.floor(wanted + 0.5)
        if self.ratios is None:
            late = min(max(late, math.ceil(target / len(tokens) - 1e-9)), layers)
        cells = len(torch.unique(2 * tokens.chunk.long() + tokens.audio.long()))
        path = _Path(steps, late, layers, cells)
        pair = self.ratios or entry.pair(self.budget)
        enters = int(entry.at(pair).sum())
        drop = total_drop(self.scale, steps, late, layers)
        counts = path.counts(enters, drop)
        solved = self.ratios is None and abs(sum(counts) - wanted) > wanted / 100
        if solved:
            enters = path.enters(enters, target, len(entry.sizes), len(tokens))
            drop, counts = path.solve(enters, target, 0.1 * schedules.TOLERANCE * size)
            if abs(sum(counts) - wanted) > schedules.TOLERANCE * size + 1e-9:
                lowest = sum(path.counts(len(entry.sizes), 1.0))
                raise schedules.refusal(self.budget, len(tokens), layers, lowest, size)
        levels = [counts[0], *(counts[step] for step in steps)]
        settings = {
            "video_ratio": round(pair[0], 6),
            "audio_ratio": round(pair[1], 6),
            "entry_ratio": round(counts[0] / len(tokens), 6),
            "after": list(steps),
            "late": late,
            "drop": round(drop, 6),
            "keep_ratios": [round(b / a, 4) for a, b in pairwise(levels)],
            "solved": solved,
        }
        plan = Plan(len(tokens), counts, settings)
        if self.ratios is not None and abs(plan.realised - self.budget) > schedules.TOLERANCE:
            settings["note"] = (
                f"The shares of video and audio were taken as given, not solved: on this clip the "
                f"mean is {plan.realised:.3f}, not {self.budget:g}."
            )
        return plan

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Keep the tokens of each window that lie farthest apart, weighted by attention."""
        if plan.counts[0] == plan.total:
            return Entry(torch.arange(plan.total))
        entry = _Quotas.of(view.tokens, self.grids, self.scale)
        quotas = entry.at(self.ratios or entry.pair(self.budget))
        if int(quotas.sum()) != plan.counts[0]:
            quotas = entry.exactly(plan.counts[0])
        weights = torch.ones(plan.total, device=view.embeds.device)
        for mask, attention in (
            (view.tokens.video, view.video_attention),
            (view.tokens.audio, view.audio_attention),
        ):
            if attention is not None:  # an encoder that reports none: distance alone
                weights[mask.to(weights.device)] = attention.to(weights)
        return Entry(spread_out(view.embeds, weights, entry.windows, quotas))

    def keep(self, view: LayerView, count: int) -> torch.Tensor:
        """Keep what the last text token attends to most, by budgets of windows and modalities."""
        if count == 0:
            return torch.empty(0, dtype=torch.int64)
        scores = view.attention("last")
        video = view.tokens.video.cpu()
        _, window = torch.unique(view.tokens.chunk.cpu().long(), return_inverse=True)
        if int(window.max()) and bool(video.any()) and not bool(video.all()):
            cell = 2 * window + (~video).long()
            sizes = torch.bincount(cell, minlength=2 * (int(window.max()) + 1))
        else:  # one window or one modality: by modality alone, as the public code does
            cell = (~video).long()
            sizes = torch.bincount(cell, minlength=2)
        order = torch.sort(scores, descending=True, stable=True).indices
        rank = torch.empty_like(order)
        rank[order] = rank_within(cell[order], sizes)
        filled = int((sizes > 0).sum())
        if count < filled:  # ours: not one each; the best tokens of as many as there is room for
            return order[rank[order] == 0][:count].sort().values
        heat = self.temperature or TEMPERATURES.get(view.layers, TEMPERATURES[28])
        quota = self._quota(scores.float(), cell, sizes.view(-1, 2), count, heat).flatten()
        return (rank < quota[cell]).nonzero().flatten()

    def _quota(
        self,
        scores: torch.Tensor,
        cell: torch.Tensor,
        sizes: torch.Tensor,
        count: int,
        temperature: float,
    ) -> torch.Tensor:
        """Return how many each window keeps of its video and of its audio, (windows, 2)."""
        mass = torch.zeros(sizes.numel()).index_add_(0, cell, scores).view(-1, 2)
        weights = torch.softmax(mass / sizes.clamp_min(1) / temperature, dim=0)
        alive = sizes.sum(0)
        some = (sizes > 0).long()
        budget = level(
            (weights.mean(1) * count).round().long().tolist(),
            some.sum(1).tolist(),
            sizes.sum(1).tolist(),
            count,
        )
        kept = torch.tensor(budget)
        share = weights * (alive * count / alive.sum()) if self.split == "demand" else mass
        part = share[:, 0] / share.sum(1).clamp_min(torch.finfo(torch.float32).tiny)
        video = (kept * part).round().long()
        video = video.maximum(some[:, 0]).minimum(kept - some[:, 1])
        video = video.maximum(kept - sizes[:, 1]).minimum(sizes[:, 0])
        return torch.stack((video, kept - video), dim=1)


def total_drop(scale: float, steps: Sequence[int], late: int, layers: int) -> float:
    """Return the share of the entering tokens that all steps together drop.

    Binary search, as published: `scale` times the target enters, steps drop 1 : e : e² of the
    total, nothing is left after layer `late`, and the mean over the layers is the target. 0 and 1
    where no share can make it so.
    """
    low, high = 0.0, 1.0
    parts = _parts(steps)
    for _ in range(60):
        middle = (low + high) / 2
        mean_depth = late - middle * sum(p * (late - s) for p, s in zip(parts, steps, strict=True))
        low, high = (middle, high) if mean_depth * scale > layers else (low, middle)
    return (low + high) / 2 if low and high < 1 else round(high)


def level(wanted: list[int], low: list[int], high: list[int], count: int) -> list[int]:
    """Bring whole numbers between their bounds, and their sum to `count`.

    As published: one at a time, from the largest, or to the smallest; the first of equals.

    Returns
    -------
    list of int
        The sums of `low` and `high` must lie on either side of `count`.
    """
    out = [min(max(w, a), b) for w, a, b in zip(wanted, low, high, strict=True)]
    missing = count - sum(out)
    step = 1 if missing > 0 else -1
    end = high if missing > 0 else low
    heap = [(step * n, i) for i, n in enumerate(out) if n != end[i]]
    heapq.heapify(heap)
    for _ in range(abs(missing)):
        _, i = heapq.heappop(heap)
        out[i] += step
        if out[i] != end[i]:
            heapq.heappush(heap, (step * out[i], i))
    return out


def _layer(place: int | float, layers: int) -> int:
    """Return a number of layers that is given as such, or as a share of the depth."""
    return round(place * layers) if isinstance(place, float) else place


def _parts(steps: Sequence[int]) -> list[float]:
    """Return each step's part of the total drop, 1 : e : e²."""
    raw = [math.exp(i) for i in range(len(steps))]
    return [part / sum(raw) for part in raw]


@dataclass(frozen=True)
class _Path:
    """Counts over the layers: some enter, steps drop, and none are left after `late`."""

    steps: tuple[int, ...]
    late: int
    layers: int
    cells: int

    def counts(self, enters: int, drop: float) -> tuple[int, ...]:
        """Return the AV tokens that enter each layer; at least one of each window and modality."""
        floor = min(self.cells, enters)
        levels: list[int] = []
        part_so_far, start, current = 0.0, 0, enters
        for step, part in zip(self.steps, _parts(self.steps), strict=True):
            levels += [current] * (step - start)
            part_so_far, start = part_so_far + part, step
            current = max(round(enters * (1 - drop * part_so_far)), floor)
        levels += [current] * (self.late - start)
        return tuple(levels + [0] * (self.layers - self.late))

    def enters(self, wanted: int, target: int, least: int, most: int) -> int:
        """Return the number nearest to `wanted` from which the steps can drop to the target."""
        low, high = min(max(math.ceil(target / self.late), least), most), most
        while low < high:  # the highest number that is not too many even if all is dropped
            middle = (low + high + 1) // 2
            low, high = (
                (middle, high) if sum(self.counts(middle, 1.0)) <= target else (low, middle - 1)
            )
        return min(max(wanted, math.ceil(target / self.late), least), max(low, least))

    def solve(self, enters: int, target: int, settle: float) -> tuple[float, tuple[int, ...]]:
        """Return the drop whose counts sum to the target, settled in single tokens if need be."""
        upper, lower = self.counts(enters, 0.0), self.counts(enters, 1.0)
        if sum(upper) <= target:
            return 0.0, upper
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            counts = self.counts(enters, middle)
            if sum(counts) >= target:
                low, upper = middle, counts
            else:
                high, lower = middle, counts
        nearer = sum(upper) - target <= target - sum(lower)
        drop, nearest = (low, upper) if nearer else (high, lower)
        if abs(sum(nearest) - target) > settle and sum(lower) < target < sum(upper):
            nearest = schedules.blend(upper, lower, target)
        return drop, nearest


@dataclass(frozen=True)
class _Quotas:
    """Windows of a clip, and how many tokens each keeps at entry.

    Attributes
    ----------
    windows : Windows
    sizes : Tensor, (w,) int64
        Tokens per window.
    is_audio : Tensor, (w,) bool
        Windows of audio.
    scale : float
    """

    windows: Windows
    sizes: torch.Tensor
    is_audio: torch.Tensor
    scale: float

    @classmethod
    def of(cls, tokens: TokenMap, grids: int, scale: float) -> _Quotas:
        """Cut video by runs of `grids` temporal grids, and audio by chunks."""
        audio = tokens.audio.cpu()
        grid, chunk = tokens.grid[:, 0].cpu().long(), tokens.chunk.cpu().long()
        windows = Windows.of(2 * torch.where(audio, chunk, grid // grids) + audio.long())
        return cls(windows, windows.sizes, windows.labels % 2 == 1, scale)

    def pair(self, budget: float) -> tuple[float, float]:
        """Return the target shares of video and audio whose mean over the tokens is the budget."""
        audio = int(self.sizes[self.is_audio].sum())
        video = int(self.sizes.sum()) - audio
        means = [(v * video + a * audio) / (video + audio) for v, a in PAIRS]
        i = next(i for i in range(1, len(PAIRS)) if budget <= means[i] or i == len(PAIRS) - 1)
        part = min((budget - means[i - 1]) / (means[i] - means[i - 1]), 1.0)
        (v0, a0), (v1, a1) = PAIRS[i - 1], PAIRS[i]
        return v0 + (v1 - v0) * part, a0 + (a1 - a0) * part

    def at(self, pair: tuple[float, float]) -> torch.Tensor:
        """Return the published numbers: the share of each window, rounded, at least one."""
        rates = [min(self.scale * ratio, 1.0) for ratio in pair]
        sizes, is_audio = self.sizes.tolist(), self.is_audio.tolist()
        return torch.tensor(
            [max(1, round(rates[audio] * n)) for n, audio in zip(sizes, is_audio, strict=True)]
        )

    def exactly(self, count: int) -> torch.Tensor:
        """Return the numbers on the way from one each to all of them whose sum is `count`.

        Where a composition lets fewer in than there are windows, evenly spaced ones keep a token.
        """
        if count < len(self.sizes):
            few = torch.zeros_like(self.sizes)
            few[even(len(few), count)] = 1
            return few
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            enough = int(self.at(self.pair(middle)).sum()) >= count
            low, high = (low, middle) if enough else (middle, high)
        lower, upper = self.at(self.pair(low)), self.at(self.pair(high))
        return lower + shares(upper - lower, count - int(lower.sum()))
