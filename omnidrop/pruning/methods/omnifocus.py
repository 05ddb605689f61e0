"""OmniFocus: moments that are like the question keep more, in sound and in picture apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch.nn.functional import normalize

from omnidrop.errors import UsageError
from omnidrop.pruning import checks, schedules
from omnidrop.pruning.method import Entry, EntryView, Need, Part, Plan
from omnidrop.pruning.parts.audio_guided import Path, apportion, audio_quota
from omnidrop.pruning.parts.entry_only import EntryMethod
from omnidrop.pruning.parts.select import top_within
from omnidrop.pruning.parts.shares_by_kind import checked, counts
from omnidrop.tokens import TokenMap

#: Shares of video and audio that stay, by the share of all tokens where six in seven are video.
SHARES = {25: (0.20, 0.55), 35: (0.30, 0.65), 45: (0.40, 0.75)}

#: The same as (audio, video), with ends.
PATH: Path = ((0.0, 0.0), *((a, v) for v, a in SHARES.values()), (1.0, 1.0))

#: Tokens compared at once: bounds the float32 copies.
_BLOCK = 1024


@dataclass(frozen=True)
class OmniFocus(EntryMethod):
    """Keeps more of the moments that are like the question, before the LLM.

    Based on OmniFocus (https://arxiv.org/abs/2607.03050), of which only a detailed summary was at
    hand and no code is public.

    Published: audio and video are treated alike and apart. A chunk's score is the highest cosine of
    any of its tokens to the question, the unit vector of the mean of its words' embeddings.
    1 − softmax of the scores over the chunks, scaled to lie between 0.35 and 0.75, is the share
    that a chunk drops; one number is added to all of them, found by bisection, so that the modality
    drops what it should. Of what a chunk keeps, half, rounded down, are the tokens most like the
    mean of the other modality in the chunk (association), the others those least like the mean of
    their own (peaks). The shares of audio and video are set by hand for each benchmark, in the way
    of OmniZip.

    Ours: after the number is added, rates are clamped to [0, 1] (the summary does not say to what),
    since a modality that drops 0.8 could not be had with all rates below 0.75. One budget gives the
    shares of audio and video, on straight lines between (0.75, 0.40), (0.65, 0.30) and
    (0.55, 0.20), which are 45, 35 and 25 % where six tokens in seven are video: the first two are
    those of OmniZip with its anchors, the last that of SEATS and OmniPack. A token that is chosen
    by association is not chosen again; the next peak takes its place. Where a chunk has one
    modality only, all that it keeps are peaks. Whole numbers of tokens come from cumulative
    rounding.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    ratios : (float, float), optional
        Shares of video and audio that stay, taken as they stand; `budget` is then only a name.
    least, most : float, default 0.35, 0.75
        Shares that the chunks most and least like the question drop, before they are moved to meet
        the total (published).
    association : float, default 0.5
        Part of what a chunk keeps that is chosen by association (published).
    """

    name: ClassVar[str] = "omnifocus"
    wants: ClassVar[frozenset[str]] = frozenset({Need.QUESTION})
    question_free: ClassVar[bool] = False

    ratios: tuple[float, float] | None = None
    least: float = 0.35
    most: float = 0.75
    association: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratios is not None:
            object.__setattr__(self, "ratios", checked("ratios", self.ratios))
        checks.number("least", self.least, low=0, high=1)
        checks.number("most", self.most, low=0, high=1)
        if self.least > self.most:
            raise UsageError(f"least ({self.least:g}) cannot be above most ({self.most:g}).")
        checks.number("association", self.association, low=0, high=1)

    @classmethod
    def presets(cls) -> dict[str, OmniFocus]:
        """Return the two published totals, which keep 35 and 25 % where one in seven is audio."""
        return {f"omnifocus-{n}": cls(budget=n / 100, ratios=SHARES[n]) for n in (25, 35)}

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {
            "least": (0.0, 0.2, 0.35, 0.55),
            "association": (0.0, 0.25, 0.5, 0.75, 1.0),
        }

    def parts(self) -> frozenset[Part]:
        """Return the entry, unless given shares fix how many tokens enter."""
        return super().parts() if self.ratios is None else frozenset()

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Keep one number of tokens throughout."""
        total = len(tokens)
        if self.ratios is None or not total:
            plan = super().plan(tokens, layers)
        else:
            curve = schedules.Curve("step", entry_ratio=sum(counts(tokens, self.ratios)) / total)
            plan = schedules.fixed(curve, total, layers, self.budget)
        if not total:
            return plan
        heard = self._heard(tokens, plan.counts[0])
        kept = {"audio_kept": heard, "video_kept": plan.counts[0] - heard}
        return replace(plan, settings={**plan.settings, **kept})

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Choose how much each chunk keeps of its audio and of its video, and which tokens."""
        total, count = plan.total, plan.counts[0]
        if count == total:
            return Entry(torch.arange(total))
        cells = _Cells.of(view)
        quota = torch.zeros_like(cells.sizes)
        heard = self._heard(view.tokens, count)
        for kind, kept in ((0, count - heard), (1, heard)):
            own = (cells.kind == kind).nonzero().flatten()
            if len(own):
                quota[own] = self._quotas(cells.scores[own], cells.sizes[own], kept)
        few = torch.where(cells.paired, (self.association * quota + 1e-9).floor().long(), 0)
        linked = top_within(cells.association, cells.cell, few)
        peaks = cells.peaks.index_fill(0, linked, -torch.inf)
        others = top_within(peaks, cells.cell, quota - few)
        return Entry(torch.cat((linked, others)).sort().values)

    def _heard(self, tokens: TokenMap, count: int) -> int:
        """Return how many of the `count` tokens that enter are audio."""
        if self.ratios is not None:
            seen, heard = counts(tokens, self.ratios)
            if seen + heard == count:
                return heard
        audio = int(tokens.audio.sum())
        return audio_quota(audio, len(tokens) - audio, count, PATH)

    def _quotas(self, scores: torch.Tensor, sizes: torch.Tensor, count: int) -> torch.Tensor:
        """Return how many tokens each chunk keeps of one modality, (c,) int64; they sum to `count`.

        Parameters
        ----------
        scores : Tensor, (c,) float64
        sizes : Tensor, (c,) int64
        count : int
        """
        blur = 1 - scores.softmax(0)
        span = (blur.max() - blur.min()).clamp_min(torch.finfo(torch.float64).tiny)
        rates = self.least + (self.most - self.least) * (blur - blur.min()) / span
        low, high = -1.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            kept = float(((1 - (rates + middle).clamp(0, 1)) * sizes).sum())
            low, high = (middle, high) if kept > count else (low, middle)
        return apportion(1 - (rates + high).clamp(0, 1), sizes, count)


@dataclass(frozen=True)
class _Cells:
    """Tokens by chunk and modality, on the CPU.

    Attributes
    ----------
    cell : Tensor, (N,) int64
        Cell of each token.
    association : Tensor, (N,) float32
        Cosine of each token to the mean of the other modality in its chunk.
    peaks : Tensor, (N,) float32
        1 − cosine of each token to the mean of its own cell.
    kind : Tensor, (c,) int64
        0 for cells of video, 1 for those of audio.
    sizes : Tensor, (c,) int64
    scores : Tensor, (c,) float64
        Highest cosine of any token of the cell to the question.
    paired : Tensor, (c,) bool
        Whether the chunk has the other modality too.
    """

    cell: torch.Tensor
    association: torch.Tensor
    peaks: torch.Tensor
    kind: torch.Tensor
    sizes: torch.Tensor
    scores: torch.Tensor
    paired: torch.Tensor

    @classmethod
    def of(cls, view: EntryView) -> _Cells:
        """Compare all tokens with the question, and with the means of their chunk."""
        if view.question_embeds is None:
            raise ValueError("OmniFocus chooses by the question, and the view has none.")
        label = 2 * view.tokens.chunk.cpu().long() + view.tokens.audio.cpu().long()
        labels, cell, sizes = torch.unique(label, return_inverse=True, return_counts=True)
        other = torch.searchsorted(labels, labels ^ 1).clamp_max(len(labels) - 1)
        paired = labels[other] == labels ^ 1

        embeds, device = view.embeds, view.embeds.device
        there, across = cell.to(device), other.to(device)[cell.to(device)]
        means = torch.zeros(len(labels), embeds.shape[1], device=device)
        blocks = list(zip(embeds.split(_BLOCK), there.split(_BLOCK), strict=True))
        for rows, into in blocks:
            means.index_add_(0, into, rows.float())
        means = normalize(means, dim=-1)
        asked = normalize(view.question_embeds.to(device).float().mean(0), dim=0)
        found = []
        for (rows, own), far in zip(blocks, across.split(_BLOCK), strict=True):
            units = normalize(rows.float(), dim=-1)
            linked, typical = (units * means[far]).sum(1), (units * means[own]).sum(1)
            found.append(torch.stack((units @ asked, linked, 1 - typical)))
        likeness, association, peaks = torch.cat(found, dim=1).cpu()
        scores = torch.full((len(labels),), -torch.inf).scatter_reduce(0, cell, likeness, "amax")
        return cls(cell, association, peaks, labels % 2, sizes, scores.double(), paired)
