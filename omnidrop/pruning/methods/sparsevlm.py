"""SparseVLM: the question's most relevant words score the tokens; the best dropped are merged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch

from omnidrop.pruning import checks, schedules
from omnidrop.pruning.method import Entry, EntryView, LayerMethod, LayerView, MethodState, Plan
from omnidrop.pruning.parts.merging import mixed
from omnidrop.pruning.parts.select import top
from omnidrop.tokens import TokenMap

#: Public code: after layers 2, 6 and 15 (0-based) of 32.
_STAGES = (3 / 32, 7 / 32, 16 / 32)

#: Cells of the similarity of tokens and words held at once.
_BLOCK = 1 << 22


@dataclass
class Rating(MethodState):
    """What SparseVLM remembers.

    Attributes
    ----------
    left : int
        AV tokens, summed over the layers still to come, that the budget leaves room for.
    embeds : Tensor or None, (N, D)
        The clip's embeddings, until the raters are chosen.
    raters : Tensor or None, (m,) int64
        The question's tokens that rate, once they are chosen.
    """

    left: int
    embeds: torch.Tensor | None = None
    raters: torch.Tensor | None = None


def _state(state: MethodState) -> Rating:
    assert isinstance(state, Rating)
    return state


@dataclass(frozen=True)
class SparseVLM(LayerMethod):
    """Drops what the question's most relevant words attend to least, and merges the best of it.

    Based on SparseVLM (https://arxiv.org/abs/2410.04417; public code
    https://github.com/Gumpest/SparseVLMs).

    Published: raters are the question's tokens whose similarity to the audio and video tokens
    (softmax over the question, mean over the tokens, on the embeddings) is over the mean; their
    mean attention ranks the tokens. At each stage `floor(lambda · (n − rank))` of n tokens are
    dropped, rank being that of the matrix of the raters' attention. Of the dropped tokens the 30 %
    with most attention are clustered by density peaks, one cluster for ten, and every cluster's
    mean is added behind the kept tokens.

    Ours: audio and video are one pool. Lambda, which the paper tunes, is solved again at each stage
    for what is left of the budget, as if later stages had this stage's rank; the last stage takes
    exactly the rest, so that the mean over the layers is the budget whatever the ranks were. A clip
    has far more tokens than a question has words, so the rank shifts the counts by a handful of
    tokens only. A cluster's mean takes the place of the dropped token at the cluster's centre; the
    counts include these, and they are at most half of what stays. As the layers before the first
    stage see everything, a budget cannot be under the first stage's share of the depth.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    cache : {"own", "cut"}, default "own"
        Caches of earlier layers: each layer's own, or cut to the survivors.
    stages : tuple of float, default (3/32, 7/32, 1/2)
        Where tokens are dropped, as shares of the depth (public code: after layers 2, 6 and 15 of
        32, counted from 0).
    recycle : float, default 0.3
        Share of the dropped tokens that is recycled (paper); 0 turns it off.
    cluster : int, default 10
        Recycled tokens per cluster (paper).
    scale : float, optional
        Keep `scale · rank` tokens at each stage instead, as the first public code does (13.5 for
        192 of 576 tokens). Nothing is solved then and `budget` is only a name.
    """

    name: ClassVar[str] = "sparsevlm"
    enters_all: ClassVar[bool] = True
    needs_own_schedule: ClassVar[bool] = True
    needs_host: ClassVar[str] = "counts that follow the rank of the attention"

    stages: Sequence[float] = _STAGES
    recycle: float = 0.3
    cluster: int = 10
    scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "stages", checks.shares("stages", self.stages))
        checks.number("recycle", self.recycle, low=0, high=1)
        checks.whole("cluster", self.cluster, low=1)
        if self.scale is not None:
            checks.number("scale", self.scale, low=0)

    @classmethod
    def presets(cls) -> dict[str, SparseVLM]:
        """Return the setting of the first public code, named 192 of 576 tokens."""
        return {"sparsevlm-published": cls(budget=192 / 576, scale=13.5)}

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        early = ((0.0, 0.125, 0.4), (0.05, 0.2, 0.5))
        late = ((0.2, 0.35, 0.55), (0.3, 0.5, 0.7), (0.5, 0.65, 0.8))
        return {"stages": (*early, _STAGES, *late), "recycle": (0.0, 0.3, 0.5)}

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Expect the counts of rank 0; `keep` moves tokens between stages as the ranks say."""
        path = schedules.staged_path(self.stages)
        if self.scale is not None:
            curve, total = path[0], len(tokens)
            plan = schedules.fixed(curve, total, layers, 1.0)
            plan.settings["note"] = "The counts follow the ranks; no budget was solved for."
            return Plan(total, plan.counts, plan.settings, adaptive=total > 0)
        plan = schedules.solve(self.budget, len(tokens), layers, path)
        drops = plan.counts[-1] < plan.total
        return Plan(plan.total, plan.counts, plan.settings, adaptive=drops)

    def start(self, plan: Plan) -> Rating:
        """Start with what may still enter the layers after the first."""
        return Rating(left=sum(plan.counts) - plan.counts[0])

    def watch(self, view: EntryView) -> None:
        """Keep the embeddings: the raters are chosen later, when there is a question."""
        _state(view.state).embeds = view.embeds

    def keep(self, view: LayerView, count: int) -> torch.Tensor | Entry:
        """Drop at a stage, and recycle; elsewhere at most settle single tokens of the budget."""
        state, alive = _state(view.state), len(view.tokens)
        turns = [schedules.first_smaller(share, view.layers) for share in self.stages]
        attention = self._rated(view) if view.layer + 1 in turns else None
        rank = 0 if attention is None else int(torch.linalg.matrix_rank(attention))
        if self.scale is None:
            count = _share_out(alive, rank, view.layer + 1, view.layers, turns, state.left)
            state.left -= count
        else:
            count = alive if attention is None else min(int(self.scale * rank), alive)
        if count == alive:
            return torch.arange(alive)
        if attention is None:
            return top(view.attention("question"), count)
        clusters = self._clusters(alive, count)
        return recycle(view.hidden(), attention.mean(0), count, clusters, self.recycle)

    def _rated(self, view: LayerView) -> torch.Tensor:
        """Return the raters' attention, (m, n); they are chosen once, at the first stage."""
        state = _state(view.state)
        if state.raters is None:
            assert state.embeds is not None
            state.raters = choose_raters(state.embeds, view.text_embeds("question"))
            state.embeds = None
        return view.row_attention("question")[state.raters]

    def _clusters(self, alive: int, count: int) -> int:
        """Return how many of the `count` that stay are means of clusters."""
        if not self.recycle:
            return 0
        clusters = 0
        for _ in range(alive):
            best = int(self.recycle * (alive - count + clusters)) + 1
            if best // self.cluster + 1 == clusters:
                break
            clusters = best // self.cluster + 1
        return min(clusters, count // 2)


def choose_raters(tokens: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Return which of the question's words rate the tokens.

    Parameters
    ----------
    tokens : Tensor, (n, D)
    words : Tensor, (r, D)

    Returns
    -------
    Tensor, (m,) int64
        Words over the mean of `mean_n softmax_r(tokens · words)`; all of them where none is.
    """
    words = words.float()
    block = max(1, _BLOCK // max(len(words), 1))
    total = sum((part.float() @ words.T).softmax(-1).sum(0) for part in tokens.split(block))
    share = torch.as_tensor(total).cpu()
    chosen = (share > share.mean()).nonzero().flatten()
    return chosen if len(chosen) else torch.arange(len(words))


def recycle(
    states: torch.Tensor, scores: torch.Tensor, count: int, clusters: int, share: float
) -> Entry:
    """Keep the best tokens, and the means of clusters of the best dropped ones at their centres.

    Parameters
    ----------
    states : Tensor, (n, D)
    scores : Tensor, (n,) float32
    count : int
        How many go on, clusters included.
    clusters : int
    share : float
        Share of the dropped tokens that is clustered.
    """
    kept = top(scores, count - clusters)
    if not clusters:
        return Entry(kept)
    rest = torch.ones(len(scores), dtype=torch.bool)
    rest[kept] = False
    dropped = rest.nonzero().flatten()
    best = max(min(int(share * len(dropped)) + 1, len(dropped)), clusters)
    pool = dropped[top(scores[dropped], best)]
    on_device = pool.to(states.device)
    centres, member = density_clusters(states[on_device].float(), clusters)
    keep = torch.cat((kept, pool[centres])).sort().values
    return mixed(keep, pool[centres[member]], pool)


def density_clusters(points: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cluster by density peaks; k = `count` as in the public code, but at least 2 (ours).

    A point's density is `exp(−mean squared distance to its k nearest points, itself included)`,
    distances divided by the root of the width; its reach is the distance to the nearest denser
    point (for the densest, the largest distance there is). The `count` points with the highest
    product are centres; every point joins the nearest. Of equally dense points the earlier is
    taken for the denser (the public code adds noise instead).

    Returns
    -------
    centres : Tensor, (count,) int64
        In order of density · reach.
    member : Tensor, (n,) int64
        Cluster of each point, 0 to `count` − 1.
    """
    apart = torch.cdist(points, points).fill_diagonal_(0) / math.sqrt(points.shape[1])
    near = apart.topk(min(max(count, 2), len(points)), largest=False).values
    density = near.square().mean(-1).neg().exp()
    place = torch.arange(len(points), device=points.device)
    denser = (density[None] > density[:, None]) | (
        (density[None] == density[:, None]) & (place[None] < place[:, None])
    )
    reach = torch.where(denser, apart, apart.max()).min(-1).values
    centres = torch.sort(density * reach, descending=True, stable=True).indices[:count]
    member = apart[centres].argmin(0)
    member[centres] = torch.arange(count, device=points.device)
    return centres.cpu(), member.cpu()


def _share_out(alive: int, rank: int, nxt: int, layers: int, turns: list[int], left: int) -> int:
    """Return how many tokens enter layer `nxt` when `left` may still enter the layers from it on.

    At a stage: `floor(lambda · (n − rank))` go, lambda solved so that this and the later stages,
    with this rank, need no less than `left`. After the last stage `left` is spread evenly.
    """
    rest = layers - nxt
    if nxt >= turns[-1]:
        return min(alive, -(-left // rest))
    if nxt not in turns:
        return min(alive, left)
    edges = [nxt, *sorted({turn for turn in turns if turn > nxt}), layers]
    spans = [b - a for a, b in pairwise(edges)]

    def counts(rate: float) -> list[int]:
        found, n = [], alive
        for _ in spans:
            n -= math.floor(rate * max(n - rank, 0))
            found.append(n)
        return found

    def suffices(rate: float) -> bool:
        return sum(n * span for n, span in zip(counts(rate), spans, strict=True)) >= left

    low, high = (1.0, 1.0) if suffices(1.0) else (0.0, 1.0)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if suffices(middle) else (low, middle)
    count = min(counts(low)[0], left // spans[0])
    return min(max(count, -(-left // rest)), alive)
