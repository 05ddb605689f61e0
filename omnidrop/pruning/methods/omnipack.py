"""OmniPack: important and typical tokens at entry, and half of them later inside the LLM.

What is dropped is merged into what stays, both before the LLM and inside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch.nn.functional import normalize

from omnidrop.pruning import checks, schedules
from omnidrop.pruning.method import (
    CachePolicy,
    Entry,
    EntryView,
    LayerMethod,
    LayerView,
    Mix,
    Need,
    Part,
    Plan,
    Rows,
)
from omnidrop.pruning.parts.audio_guided import Path, audio_quota
from omnidrop.pruning.parts.frames import Frames
from omnidrop.pruning.parts.merging import mixed
from omnidrop.pruning.parts.select import top
from omnidrop.pruning.parts.shares_by_kind import checked, counts
from omnidrop.tokens import TokenMap
from omnidrop.transfers import to_device

#: Shares of video and audio that enter, published under the names 25, 20, 15 and 10.
SHARES = {25: (0.20, 0.55), 20: (0.15, 0.50), 15: (0.10, 0.45), 10: (0.06, 0.35)}

#: The same as (audio, video), with ends (ours).
PATH: Path = ((0.0, 0.0), *((a, v) for v, a in reversed(SHARES.values())), (1.0, 1.0))

#: Weight of what changes beside the encoder's attention (public code), audio and video.
_CUE = {"audio": 0.25, "video": 0.35}
#: How far away costs what a token is merged into (published), audio and video.
_NEAR = {"audio": 0.05, "video": 0.10}
#: How much importance attracts (published).
_ATTRACTION = 0.10

#: Distances that are held at once, and computed at once; a larger table is computed twice.
_WHOLE = 2**26
_BLOCK = 2**22
_TINY = 1e-12


@dataclass(frozen=True)
class OmniPack(LayerMethod):
    """Merges tokens into important and typical ones at entry, and once more inside the LLM.

    Based on OmniPack (https://arxiv.org/abs/2608.03812), with the formulas that a public audit of
    the paper gives (https://github.com/thepreakerebi/gist), and on its public code
    (https://github.com/RowanSu/OmniPack).

    Published: of each modality a share of what enters, 0.25 of video and 0.35 of audio, are its
    most important tokens, by the attention received in the encoder and by change, the cosine
    distance to neighbours in time and, of video, to the mean of the frame. The rest are density
    peaks: exp(−mean squared distance to 7 neighbours) times the distance to the nearest denser
    token, where a distance is 1 − cosine + 0.20 · distance of the places. A dropped token is merged
    into the kept one with the highest cosine − τ · distance of the places + 0.10 · importance (τ:
    0.10 for video, 0.05 for audio), with a weight of half to one by its own importance. From layer
    18 of 28 on half of each modality stays. The first is the most relevant; each next one has the
    greatest product of 1 + relevance and distance to those chosen. Relevance is the sum of three
    parts, each scaled to [0, 1] in its modality: the cosine to the text (to its mean, or to the
    word most alike), that to the mean of the other modality, and exp(−mean distance to its own
    modality). The dropped tokens are merged again, and the caches of earlier layers are cut.

    Ours: where the paper is open, the public code decides. Attention and change are scaled to
    [0, 1] and added, change weighing 0.35 for video and 0.25 for audio; of the two changes of video
    the larger counts; density peaks are sought among what is not yet taken; inside the LLM a
    dropped token weighs ((1 + cosine) / 2)² times half to one by its relevance. Other than in that
    code, the text is the question, as for the other methods here (`rows`; there, all text), and
    density is not raised by importance, nor is a merged mean mixed with the token's own embedding
    (there at 0.62 and 0.65): the paper's formulas have neither. Places are time for audio, and
    time, row and column for video, scaled so that opposite ends of the clip are 1 apart. The step
    is at the same share of the depth in other models. One budget gives both shares, on straight
    lines between the published pairs; where half after the step would be too few, everything enters
    and more than half stays.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    cache : {"own", "cut"}, default "cut"
        Caches of earlier layers: each layer's own, or cut to the survivors (published).
    ratios : (float, float), optional
        Shares of video and audio that enter, taken as they stand; `budget` is then only a name.
    at : float, default 18/28
        Share of the depth from which on the layers see fewer tokens (published for 28 layers).
    keeps : float, default 0.5
        Share of what entered that stays there (published).
    important : (float, float), default (0.25, 0.35)
        Share of video and of audio that enters by importance (published); the rest are peaks.
    distance : float, default 0.2
        Weight of the distance of places beside 1 − cosine (published).
    neighbours : int, default 7
        Neighbours that density looks at (published).
    rows : {"question", "last", "all-text"}, default "question"
        The text that relevance compares with (ours).
    merge : bool, default True
        Merge what is dropped into what stays (published), or drop it.
    """

    name: ClassVar[str] = "omnipack"
    wants: ClassVar[frozenset[str]] = frozenset({Need.VIDEO_ATTENTION})
    needs_host: ClassVar[str] = ""
    used_by: ClassVar[Mapping[str, frozenset[Part]]] = {
        "ratios": frozenset({Part.ENTRY, Part.SCHEDULE}),
        "at": frozenset({Part.SCHEDULE}),
        "keeps": frozenset({Part.SCHEDULE}),
        "important": frozenset({Part.ENTRY}),
        "distance": frozenset({Part.ENTRY}),
        "neighbours": frozenset({Part.ENTRY}),
        "rows": frozenset({Part.LAYERS}),
        "merge": frozenset({Part.ENTRY, Part.LAYERS}),
    }

    cache: CachePolicy = "cut"
    ratios: tuple[float, float] | None = None
    at: float = 18 / 28
    keeps: float = 0.5
    important: tuple[float, float] = (0.25, 0.35)
    distance: float = 0.2
    neighbours: int = 7
    rows: Rows = "question"
    merge: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratios is not None:
            object.__setattr__(self, "ratios", checked("ratios", self.ratios))
        object.__setattr__(self, "important", checked("important", self.important))
        checks.number("at", self.at, low=0, high=1)
        checks.number("keeps", self.keeps, low=0, high=1)
        checks.number("distance", self.distance, low=0)
        checks.whole("neighbours", self.neighbours, low=1)

    @classmethod
    def presets(cls) -> dict[str, OmniPack]:
        """Return the published shares by the share that enters; the means are 0.82 of that."""
        means = {25: 0.205, 20: 0.164, 15: 0.123, 10: 0.083}
        return {
            f"omnipack-{name}": cls(budget=means[name], ratios=pair)
            for name, pair in SHARES.items()
        }

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {
            "at": (0.4, 0.5, 18 / 28, 0.8),
            "keeps": (0.25, 0.5, 0.75),
            "rows": ("all-text", "last", "question"),
            "merge": (False, True),
        }

    def parts(self) -> frozenset[Part]:
        """Return all parts; given shares of video and audio fix how many tokens enter."""
        return super().parts() if self.ratios is None else super().parts() - {Part.ENTRY}

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Solve the share that enters, or take the shares that were given."""
        total = len(tokens)
        step = schedules.Curve("step", p_final=1 - self.keeps, t_mid=self.at)
        if self.ratios is None:
            path = (
                replace(step, p_final=0.0),
                step,
                replace(step, entry_ratio=0.0),
                replace(step, entry_ratio=0.0, p_final=1.0),
                replace(step, entry_ratio=0.0, p_final=1.0, t_mid=0.0),
            )
            plan = schedules.solve(self.budget, total, layers, path, settle=schedules.TOLERANCE)
        else:
            enters = sum(counts(tokens, self.ratios)) / max(total, 1)
            plan = schedules.fixed(replace(step, entry_ratio=enters), total, layers, self.budget)
        if not total:
            return plan
        heard = self._heard(tokens, plan.counts[0])
        kept = {"audio_kept": heard, "video_kept": plan.counts[0] - heard}
        return replace(plan, settings={**plan.settings, **kept})

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Keep the important tokens and the density peaks of each modality; merge the others."""
        total, count = plan.total, plan.counts[0]
        if count == total:
            return Entry(torch.arange(total))
        heard = self._heard(view.tokens, count)
        video, audio = self.important
        parts = (
            self._reduced(_audio_of(view), heard, audio, _NEAR["audio"]),
            self._reduced(_video_of(view), count - heard, video, _NEAR["video"]),
        )
        kept, target, source, weight = (torch.cat(found) for found in zip(*parts, strict=True))
        keep = kept.sort().values
        if not len(source) or not self.merge:
            return Entry(keep)
        own = torch.cat((keep, target)), torch.cat((keep, source))
        return mixed(keep, *own, torch.cat((torch.ones_like(keep, dtype=weight.dtype), weight)))

    def keep(self, view: LayerView, count: int) -> Entry:
        """Keep relevant tokens that differ from one another; merge the others into them."""
        states = view.hidden().float()
        units, audio = normalize(states, dim=-1), view.tokens.audio.to(states.device)
        wanted = relevance(states, units, audio, view.text_hidden(self.rows).float())
        keep = diverse(units, audio, 1 + wanted, count).sort().values
        gone = _others(keep, len(units))
        if not len(gone) or not len(keep) or not self.merge:
            return Entry(keep)
        place, likeness = _own_kind(units, audio, gone, keep)
        weight = ((1 + likeness) / 2).clamp(0, 1).square() * (1 + wanted[gone]) / 2
        places = torch.arange(len(keep), device=keep.device)
        ones = torch.ones(len(keep), device=keep.device)
        mix = Mix(
            torch.cat((places, place)),
            torch.cat((keep, gone)),
            torch.cat((ones, weight.clamp_min(_TINY))),
        )
        return Entry(keep, mix)

    def _heard(self, tokens: TokenMap, count: int) -> int:
        """Return how many of the `count` tokens that enter are audio."""
        if self.ratios is not None:
            seen, heard = counts(tokens, self.ratios)
            if seen + heard == count:
                return heard
        audio = int(tokens.audio.sum())
        return audio_quota(audio, len(tokens) - audio, count, PATH)

    def _reduced(
        self, own: _Modality, count: int, important: float, near: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what stays of a modality, and what is merged into what.

        Returns
        -------
        kept : Tensor, (count,) int64
        target, source : Tensor, (m,) int64
            Each dropped token, and the kept one that takes it in.
        weight : Tensor, (m,) float32

        Notes
        -----
        All indices are those of the clip's tokens.
        """
        none, total = own.index[:0], len(own.index)
        if count in (0, total):
            return own.index[:count], none, none, own.importance[:0]
        first = top(own.importance, max(round(important * count), 1) if important else 0)
        left = _others(first, total)
        peaks = density_peaks(own.units[left], own.places[left], self.distance, self.neighbours)
        keep = torch.cat((first, left[top(peaks, count - len(first))])).sort().values
        gone = _others(keep, total)
        target = keep[own.attracted(gone, keep, near)]
        weight = (1 + own.importance[gone]) / 2
        return own.index[keep], own.index[target], own.index[gone], weight


@dataclass(frozen=True)
class _Modality:
    """The tokens of one modality, before the LLM, on the device of the embeddings.

    Attributes
    ----------
    index : Tensor, (n,) int64
        Which of the clip's tokens they are.
    units : Tensor, (n, D) float32
        Unit vectors of their embeddings.
    places : Tensor, (n, c) float32
        Where they are; the ends of the clip are 1 apart.
    importance : Tensor, (n,) float32
        In [0, 1].
    """

    index: torch.Tensor
    units: torch.Tensor
    places: torch.Tensor
    importance: torch.Tensor

    def attracted(self, gone: torch.Tensor, keep: torch.Tensor, near: float) -> torch.Tensor:
        """Return which of the tokens `keep` each of `gone` is merged into, as indices into it."""
        centres, reward = self.units[keep], _ATTRACTION * self.importance[keep]
        found = []
        for some in gone.split(max(_BLOCK // len(keep), 1)):
            pull = self.units[some] @ centres.T + reward
            found.append((pull - near * _between(self.places[some], self.places[keep])).argmax(1))
        return torch.cat(found)


def _audio_of(view: EntryView) -> _Modality:
    """Return the audio tokens: what changes is the distance to the token before or after."""
    device = view.embeds.device
    index = to_device(view.tokens.audio.cpu().nonzero().flatten(), device)
    units = normalize(view.embeds[index].float(), dim=-1)
    order = torch.arange(len(index))
    change = _change(units, order[1:], order[:-1])
    times = to_device(order, device)[:, None].float()
    importance = _important(view.audio_attention, change, _CUE["audio"])
    return _Modality(index, units, _placed(times), importance)


def _video_of(view: EntryView) -> _Modality:
    """Return the video tokens: what changes is the distance to neighbours in time or the frame."""
    device = view.embeds.device
    index = view.tokens.video.cpu().nonzero().flatten()
    tokens = view.tokens.select(index)
    frames = Frames.of(tokens)
    before = frames.twins(torch.arange(len(frames)) - 1)
    later = (before >= 0).nonzero().flatten()
    there, frame = to_device(index, device), to_device(frames.frame, device)
    rows = view.embeds[there].float()
    units = normalize(rows, dim=-1)
    means = rows.new_zeros(len(frames), rows.shape[1]).index_add_(0, frame, rows)
    detail = 1 - (units * normalize(means, dim=-1)[frame]).sum(1)
    change = torch.maximum(_change(units, later, before[later]), detail)
    grid = torch.cat((frames.frame[:, None], tokens.grid[:, 1:].cpu().long()), dim=1)
    importance = _important(view.video_attention, change, _CUE["video"])
    return _Modality(there, units, _placed(to_device(grid, device).float()), importance)


def _change(units: torch.Tensor, later: torch.Tensor, earlier: torch.Tensor) -> torch.Tensor:
    """Return the larger cosine distance of each token to its neighbours in time, (n,).

    `later` and `earlier`, (m,) int64, are pairs of neighbours; a token is at most once in each.
    """
    later, earlier = to_device(later, units.device), to_device(earlier, units.device)
    step = 1 - (units[later] * units[earlier]).sum(1)
    found = units.new_zeros(len(units)).index_copy_(0, later, step)
    return found.index_copy_(0, earlier, torch.maximum(found[earlier], step))


def _important(attention: torch.Tensor | None, change: torch.Tensor, weight: float) -> torch.Tensor:
    """Return attention and change together, in [0, 1]; change alone without attention."""
    if attention is None:
        return scaled(change)
    return scaled(scaled(attention.to(change)) + weight * scaled(change))


def _placed(places: torch.Tensor) -> torch.Tensor:
    """Scale each coordinate so that the farthest places are 1 apart, (n, c) → (n, c)."""
    if not len(places):
        return places
    low, high = places.amin(0), places.amax(0)
    extended = (high > low).sum().clamp_min(1)
    return (places - low) / (high - low).clamp_min(1) / extended.sqrt()


def scaled(values: torch.Tensor) -> torch.Tensor:
    """Bring values to [0, 1]: the lowest is 0, the highest 1; equal ones are 0."""
    if not len(values):
        return values
    low, high = values.amin(), values.amax()
    return (values - low) / (high - low).clamp_min(_TINY)


def _between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the distances of places, (a, c) and (b, c) → (a, b)."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _others(index: torch.Tensor, total: int) -> torch.Tensor:
    """Return what is not in `index`, ascending; the host does not wait for the device."""
    free = torch.ones(total, dtype=torch.uint8, device=index.device).index_fill_(0, index, 0)
    return free.sort(descending=True, stable=True).indices[: total - len(index)]


def density_peaks(
    units: torch.Tensor, places: torch.Tensor, distance: float, neighbours: int
) -> torch.Tensor:
    """Return how much of a density peak each token is.

    The density is exp(−mean squared distance to the nearest tokens); it is multiplied by the
    distance to the nearest denser token, or, for the densest, to the farthest token. Of equally
    dense tokens the earlier is the denser (ours).

    Parameters
    ----------
    units : Tensor, (n, D) float32
        Unit vectors.
    places : Tensor, (n, c) float32
    distance : float
        Weight of the distance of places beside 1 − cosine.
    neighbours : int

    Returns
    -------
    Tensor, (n,) float32
    """
    total = len(units)
    if total < 2:
        return units.new_ones(total)
    order = torch.arange(total, device=units.device)
    blocks = order.split(max(_BLOCK // total, 1))

    def apart(rows: torch.Tensor) -> torch.Tensor:
        gap = (1 - units[rows] @ units.T).clamp_min_(0)
        gap += distance * _between(places[rows], places)
        return gap.scatter_(1, rows[:, None], torch.inf)

    held = [apart(rows) for rows in blocks] if total * total <= _WHOLE else None
    near = []
    for i, rows in enumerate(blocks):
        gap = apart(rows) if held is None else held[i]
        near.append(gap.topk(min(neighbours, total - 1), dim=1, largest=False).values)
    density = torch.cat(near).square().mean(1).neg().exp()
    reach = []
    for i, rows in enumerate(blocks):
        gap, own = apart(rows) if held is None else held[i], density[rows, None]
        denser = (density > own) | ((density == own) & (order < rows[:, None]))
        nearest = gap.masked_fill(~denser, torch.inf).amin(1)
        farthest = gap.scatter(1, rows[:, None], -torch.inf).amax(1)
        reach.append(torch.where(nearest.isinf(), farthest, nearest))
    return density * torch.cat(reach)


def relevance(
    states: torch.Tensor, units: torch.Tensor, audio: torch.Tensor, text: torch.Tensor
) -> torch.Tensor:
    """Return how relevant each token is inside its modality, (n,) in [0, 1].

    Parameters
    ----------
    states, units : Tensor, (n, D) float32
        Hidden states, and their unit vectors.
    audio : Tensor, (n,) bool
    text : Tensor, (r, D) float32
        Hidden states of the text.
    """
    kind = audio.long()
    masks = torch.stack((~audio, audio))
    sizes = masks.sum(1, keepdim=True).clamp_min(1)
    means = masks.float() @ states / sizes
    centre = masks.float() @ units / sizes
    words = torch.cat((text.mean(0, keepdim=True), text))
    asked = (units @ normalize(words, dim=-1).T).amax(1)
    across = (units @ normalize(means, dim=-1).T).gather(1, 1 - kind[:, None])[:, 0]
    typical = ((units @ centre.T).gather(1, kind[:, None])[:, 0] - 1).exp()
    parts = (asked, across, typical)
    total = sum((_scaled_within(part, masks, kind) for part in parts), torch.zeros_like(asked))
    return _scaled_within(total, masks, kind)


def _scaled_within(values: torch.Tensor, masks: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
    """Bring values to [0, 1] in each modality."""
    low = torch.where(masks, values, torch.inf).amin(1)[kind]
    high = torch.where(masks, values, -torch.inf).amax(1)[kind]
    return (values - low) / (high - low).clamp_min(_TINY)


def diverse(
    units: torch.Tensor, audio: torch.Tensor, factor: torch.Tensor, count: int
) -> torch.Tensor:
    """Choose tokens that are far from one another, the same share of video and of audio.

    Greedy max-min selection on `(1 − cosine) · factor` in each modality, from the token with the
    highest factor on. Each modality keeps at least one token where there is room.

    Parameters
    ----------
    units : Tensor, (n, D) float32
        Unit vectors.
    audio : Tensor, (n,) bool
    factor : Tensor, (n,) float32
        At least 1.
    count : int
        0 to n.

    Returns
    -------
    Tensor, (count,) int64
        In the order of the choice. Which of them are audio is known to the device alone: nothing
        here waits for it.
    """
    total, device = len(units), units.device
    heard = audio.sum()
    seen = (2 * count * (total - heard) + total) // (2 * total)
    if count > 1:
        seen = seen.maximum((heard < total).long()).minimum(count - (heard > 0).long())
    # First video, then audio: a token whose turn it is not loses against every other one.
    turns = (torch.arange(count, device=device) >= seen).long()
    barred = torch.stack((audio, ~audio)).float() * -8.0

    def away(rows: torch.Tensor) -> torch.Tensor:
        gap = (1 - units[rows] @ units.T).clamp_min_(0) * factor
        return gap.masked_fill_(audio[rows, None] != audio, torch.inf)

    whole = away(torch.arange(total, device=device)) if total * total <= _WHOLE else None
    nearest, chosen = 2 * factor, [turns[:0]]
    for step in range(count):
        allowed = barred.index_select(0, turns[step : step + 1])[0]
        pick = (nearest + allowed).argmax().view(1)
        chosen.append(pick)
        gap = away(pick)[0] if whole is None else whole.index_select(0, pick)[0]
        nearest = torch.minimum(nearest, gap).index_fill_(0, pick, -1.0)
    return torch.cat(chosen)


def _own_kind(
    units: torch.Tensor, audio: torch.Tensor, gone: torch.Tensor, keep: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which of `keep` each of `gone` is most like, and the cosine.

    The other modality is taken only where nothing is left of a token's own.
    """
    places, values = [], []
    for some in gone.split(max(_BLOCK // len(keep), 1)):
        alike = units[some] @ units[keep].T
        best = (alike - 4.0 * (audio[some, None] != audio[keep])).argmax(1)
        places.append(best)
        values.append(alike.gather(1, best[:, None])[:, 0])
    return torch.cat(places), torch.cat(values)
