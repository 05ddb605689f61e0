"""OmniDelta: the question's intent splits any method's budget between audio and video.

`uniform@omnidelta` is the method `uniform` with this split. It wraps a method as a composition
joins two: how many tokens enter each layer stays what the method planned, and OmniDelta says how
many of them are audio, how many video, and which parts of the clip have more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch.nn.functional import normalize

from omnidrop.errors import UsageError
from omnidrop.pruning import checks
from omnidrop.pruning.compose import Compose
from omnidrop.pruning.method import (
    CachePolicy,
    Entry,
    EntryView,
    LayerView,
    Method,
    MethodState,
    Need,
    Part,
    Plan,
    Rows,
)
from omnidrop.pruning.parts.audio_guided import apportion
from omnidrop.pruning.parts.change import mean_change, neighbours, scaled
from omnidrop.pruning.parts.farthest_point import Windows
from omnidrop.pruning.parts.frames import Frames
from omnidrop.pruning.parts.merging import mixed
from omnidrop.tokens import TokenMap
from omnidrop.transfers import to_device

#: What is done by hearing, and what by seeing (ours; the paper's pools were not at hand).
AUDIO_SKILLS = (
    "what is said, told or asked in words",
    "who speaks, and with which voice or accent",
    "which instrument plays the music",
    "which song, melody or lyrics are sung",
    "which sound or noise is heard",
    "how loud, quiet, high or low the sound is",
    "when the sound starts, stops or repeats",
    "how many sounds, beats or voices are heard",
    "how the voice sounds: happy, sad or angry",
)
VIDEO_SKILLS = (
    "what is seen or shown on the screen",
    "which colour the object has",
    "which shape or size the object has",
    "which text, sign or number is written",
    "who is visible, and what the person looks like or wears",
    "what the person does, holds or points at",
    "how many objects or people are visible",
    "where the object is: left, right, above or behind",
    "how and where the object moves",
    "what the place, scene or background looks like",
)

#: Which tokens have a budget of their own.
Cells = Literal["frame", "chunk", "modality"]


@dataclass
class Share(MethodState):
    """One modality's part of a run.

    Attributes
    ----------
    counts : tuple of int, length L
        How many of its tokens enter each layer.
    state : MethodState
        What the wrapped method remembers about it.
    alive : int
        How many of its tokens are left.
    """

    counts: tuple[int, ...]
    state: MethodState
    alive: int


@dataclass
class Split(MethodState):
    """What OmniDelta remembers.

    Attributes
    ----------
    adaptive : bool
        The wrapped method decides as it goes how many tokens stay.
    audio, video : Share or None
        None until `enter` has seen the question.
    """

    adaptive: bool
    audio: Share | None = None
    video: Share | None = None


@dataclass(frozen=True)
class OmniDelta(Method):
    """Splits another method's budget between audio and video by what the question asks for.

    Based on OmniDelta (https://arxiv.org/abs/2607.25669), of which only summaries were at hand and
    no code is public.

    Published: a pool of audio skills and one of video skills are compared with the question, and
    the demand moves a part of the fixed number of kept tokens from one modality to the other; the
    direct similarity of question and audio or video is found to be no guide. Inside the modalities
    the number is divided over segments of audio by their complexity and over video frames by how
    little they repeat. An existing method then chooses the tokens, and the total stays what it was.

    Ours:

    - The pools (`AUDIO_SKILLS`, `VIDEO_SKILLS`) are short phrases. A modality's demand is the mean
      over the question's tokens of the highest cosine to any token of its pool, by the embeddings
      that enter layer 0. A word that both pools have counts for neither.
    - The split is that of equal shares, times 1 + δ for audio and 1 − δ for video, scaled to the
      number of tokens; δ is `shift` times the difference of the two demands' softmax. Each modality
      keeps at least one token where two stay.
    - A segment is a chunk's audio, its complexity the mean of 1 − cosine to the token before. A
      frame is a temporal grid, its novelty the mean of 1 − cosine to the same place of the frame
      before; the first is as new as the newest. Both are scaled to [0, 1], w, and a part of the
      clip keeps 1 + `spread` · (2w − 1) times its equal share.
    - The wrapped method runs once on the audio and once on the video, as if each were a clip by
      itself, and at entry once for every part, so that it works with any method, inside the layers
      too (where only the split between the modalities acts). So it never compares audio with
      video: A-PACK, ContextGuard, OmniRoute and OmniZip then lose what they are about.

    Write it METHOD@omnidelta: "uniform@omnidelta", "divprune+omnidrop@omnidelta". Settings of the
    method are written `method.NAME`, or plainly `NAME` where this one has no such setting.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N. The method's own budget is not
        used; it must be left out.
    method : Method
        Whose budget is split; written in the name.
    shift : float, default 0.5
        Largest part of its equal share that a modality gains or loses; 0 splits evenly.
    heat : float, default 0.1
        Temperature of the softmax over both demands.
    spread : float, default 0.5
        Largest part of its equal share that a part of the clip gains or loses; 0 divides evenly.
    cells : {"frame", "chunk", "modality"}, default "frame"
        Parts that have a number of tokens of their own at entry: frames of video and chunks of
        audio (published), chunks of both, or none, so that the method divides a modality itself.
        The first two suit methods that rank tokens one by one; those that compare frames (EVS,
        DyCoke, the merging of OmniDrop) want "modality".
    """

    method: Method = field(default_factory=Method)
    shift: float = 0.5
    heat: float = 0.1
    spread: float = 0.5
    cells: Cells = "frame"

    #: The part of a name that asks for it.
    mark: ClassVar[str] = "omnidelta"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("shift", self.shift, low=0, high=1)
        checks.number("heat", self.heat, low=1e-4)
        checks.number("spread", self.spread, low=0, high=1)
        inner = self.method
        if isinstance(inner, OmniDelta):
            raise UsageError(
                f"The budget of {inner.name!r} is split already.", hint="Name omnidelta once."
            )
        if inner.budget not in (1.0, self.budget):
            raise UsageError(
                f"{self.name!r} has one budget, and {inner.name!r} has another.",
                hint="Give the budget to omnidelta alone.",
            )
        if Need.PROMPT in inner.wants:
            raise UsageError(
                f"{inner.name!r} reads the prompt as a whole, so its budget cannot be split.",
                hint=f"Leave out @{self.mark}.",
            )
        chooses = type(inner).enter is not Method.enter and not isinstance(inner, Compose)
        if chooses and Part.ENTRY not in inner.parts():
            raise UsageError(
                f"The settings of {inner.name!r} fix how many tokens of each modality enter.",
                hint="Leave them to the budget.",
            )
        # The same method at every budget.
        object.__setattr__(self, "method", replace(inner, budget=1.0))

    @cached_property
    def _inner(self) -> Method:
        """The wrapped method at this budget."""
        return replace(self.method, budget=self.budget)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The method's name and this one's: "uniform@omnidelta"."""
        return f"{self.method.name}@{self.mark}"

    @property
    def wants(self) -> frozenset[str]:  # type: ignore[override]
        """The question, and what the method needs."""
        return self.method.wants | {Need.QUESTION}

    @property
    def phrases(self) -> tuple[str, ...]:  # type: ignore[override]
        """Both pools, and the method's phrases."""
        return (*AUDIO_SKILLS, *VIDEO_SKILLS, *self.method.phrases)

    @property
    def draws(self) -> bool:  # type: ignore[override]
        """Whether the method draws at random."""
        return self.method.draws

    @property
    def needs_host(self) -> str:  # type: ignore[override]
        """Why the method's choice inside the layers needs the CPU, if it does."""
        return self.method.needs_host

    @property
    def cache(self) -> CachePolicy:
        """What happens to the KV caches of earlier layers: what the method says."""
        return self.method.cache

    def parts(self) -> frozenset[Part]:
        """Return nothing: it is no part of a composition, it takes one as its method."""
        return frozenset()

    def settings(self) -> dict[str, Any]:
        """Return own settings, and those of the method under `method.`, as plain values."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "method"}
        inner = {k: v for k, v in self.method.settings().items() if k != "budget"}
        return own | {f"method.{name}": value for name, value in inner.items()}

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries, the method's too."""
        return {
            "shift": (0.0, 0.25, 0.5, 0.75),
            "spread": (0.0, 0.5, 0.9),
            "cells": ("frame", "chunk", "modality"),
            **{f"method.{name}": values for name, values in self.method.tunable().items()},
        }

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Plan what the method plans: how many tokens are kept does not change."""
        return self._inner.plan(tokens, layers)

    def start(self, plan: Plan) -> Split:
        """Wait for the question."""
        return Split(plan.adaptive)

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Split the counts of all layers, then let the method choose in each part."""
        state = _state(view.state)
        device = view.tokens.kind.device
        audio, video = (m.nonzero().flatten() for m in (view.tokens.audio, view.tokens.video))
        lean = self.shift * self.demand(view) if len(audio) and len(video) else 0.0
        heard = tuple(split(count, len(audio), len(video), lean) for count in plan.counts)
        seen = tuple(count - own for count, own in zip(plan.counts, heard, strict=True))
        found: list[tuple[torch.Tensor, Entry]] = []
        shares: list[Share] = []
        for index, counts in ((audio, heard), (video, seen)):
            own = Plan(len(index), counts, plan.settings, plan.adaptive)
            shares.append(Share(counts, self._inner.start(own), counts[0]))
            if len(index):
                part = self._part(view, index, shares[-1].state)
                found.append((index, self._entry(part, own)))
        state.audio, state.video = shares
        return _joined(found, device)

    def keep(self, view: LayerView, count: int) -> torch.Tensor | Entry:
        """Let the method choose among the audio, and among the video."""
        state = _state(view.state)
        assert state.audio is not None
        assert state.video is not None
        alive = state.audio.alive
        order = torch.sort(view.tokens.video.to(torch.uint8), stable=True).indices
        found: list[tuple[torch.Tensor, Entry]] = []
        for index, share in ((order[:alive], state.audio), (order[alive:], state.video)):
            if len(index):
                entry = self._kept(view, index, share, adaptive=state.adaptive)
                found.append((index, entry))
                share.alive = len(entry.keep)
        return _joined(found, order.device)

    def demand(self, view: EntryView) -> float:
        """Return how far the question asks for hearing, 1, rather than for seeing, −1."""
        assert view.question_embeds is not None, "the engine gives what is named in wants"
        asked = normalize(view.question_embeds.float(), dim=-1)
        ends = (0, len(AUDIO_SKILLS), len(AUDIO_SKILLS) + len(VIDEO_SKILLS))
        heard, seen = (
            (asked @ normalize(torch.cat(view.phrase_embeds[start:end]).float(), dim=-1).T)
            .amax(dim=1)
            .mean()
            for start, end in pairwise(ends)
        )
        return float(torch.tanh((heard - seen) / (2 * self.heat)))

    def _part(self, view: EntryView, index: torch.Tensor, state: MethodState) -> EntryView:
        """Return what the method sees of one modality, or of a part of one."""
        kept = torch.zeros(len(view.tokens), dtype=torch.bool, device=index.device)
        kept[index] = True
        own = len(AUDIO_SKILLS) + len(VIDEO_SKILLS)
        return replace(
            view,
            tokens=view.tokens.select(index),
            embeds=view.embeds[index.to(view.embeds.device)],
            audio_attention=_of(view.audio_attention, kept[view.tokens.audio]),
            video_attention=_of(view.video_attention, kept[view.tokens.video]),
            state=state,
            question_embeds=view.question_embeds if Need.QUESTION in self.method.wants else None,
            phrase_embeds=view.phrase_embeds[own:],
        )

    def _entry(self, part: EntryView, plan: Plan) -> Entry:
        """Return which tokens of one modality enter."""
        count = plan.counts[0]
        if count == 0:
            self._inner.watch(part)
            return Entry(torch.arange(0))
        if count == plan.total or self.cells == "modality":
            return self._inner.enter(part, plan)
        self._inner.watch(part)
        windows, weight = self._cells(part)
        quotas = apportion((weight * count / plan.total).clamp(0, 1), windows.sizes, count)
        found: list[tuple[torch.Tensor, Entry]] = []
        for index, quota in zip(
            windows.order.split(windows.sizes.tolist()), quotas.tolist(), strict=True
        ):
            if quota:
                own = Plan(len(index), (quota,) * len(plan.counts))
                cell = replace(
                    self._part(part, index, self._inner.start(own)),
                    question_embeds=part.question_embeds,
                    phrase_embeds=part.phrase_embeds,
                )
                whole = quota == len(index)
                entry = Entry(torch.arange(quota)) if whole else self._inner.enter(cell, own)
                found.append((index, entry))
        return _joined(found, windows.order.device)

    def _cells(self, part: EntryView) -> tuple[Windows, torch.Tensor]:
        """Return the parts of one modality, and the weight of each, (p,) float64."""
        index = torch.arange(len(part.tokens))
        label = part.tokens.chunk.cpu().long()
        if bool(part.tokens.audio.any()):
            label = torch.unique(label, return_inverse=True)[1]
            twins = neighbours(label)
        else:
            frames = Frames.of(part.tokens)
            twins = frames.twins(torch.arange(len(frames)) - 1)
            if self.cells == "frame":
                label = frames.frame
            label = torch.unique(label, return_inverse=True)[1]
        windows = Windows.of(label)
        change, compared = mean_change(part.embeds, index, twins, label, len(windows.sizes))
        if not bool(part.tokens.audio.any()) and bool(compared.any()):
            change = torch.where(compared, change, change[compared].max())
        return windows, 1 + self.spread * (2 * scaled(change) - 1)

    def _kept(self, view: LayerView, index: torch.Tensor, share: Share, *, adaptive: bool) -> Entry:
        """Return which tokens of one modality go on to the next layer."""
        wanted = share.counts[view.layer + 1]
        if not adaptive and wanted >= len(index):
            return Entry(torch.arange(len(index)))
        if not adaptive and wanted == 0:
            return Entry(torch.arange(0))
        chosen = self._inner.keep(_Part(view, index, share.state), wanted)
        return chosen if isinstance(chosen, Entry) else Entry(chosen)


@dataclass
class _Part:
    """What the method sees of one modality after a layer: a `LayerView` of some tokens.

    Parameters
    ----------
    _whole : LayerView
    _index : Tensor, (n,) int64
        Which of its tokens.
    state : MethodState
    """

    _whole: LayerView
    _index: torch.Tensor
    state: MethodState

    def __post_init__(self) -> None:
        self.layer, self.layers = self._whole.layer, self._whole.layers
        self.generator = self._whole.generator

    @cached_property
    def tokens(self) -> TokenMap:
        return self._whole.tokens.select(self._index)

    def attention(self, rows: Rows) -> torch.Tensor:
        return self._some(self._whole.attention(rows))

    def row_attention(self, rows: Rows) -> torch.Tensor:
        return self._some(self._whole.row_attention(rows), 1)

    def hidden(self) -> torch.Tensor:
        return self._some(self._whole.hidden())

    def text_embeds(self, rows: Rows) -> torch.Tensor:
        return self._whole.text_embeds(rows)

    def text_hidden(self, rows: Rows) -> torch.Tensor:
        return self._whole.text_hidden(rows)

    def _some(self, tensor: torch.Tensor, axis: int = 0) -> torch.Tensor:
        return tensor.index_select(axis, to_device(self._index, tensor.device))


def split(count: int, audio: int, video: int, lean: float) -> int:
    """Return how many of `count` tokens are audio.

    Parameters
    ----------
    count : int
        At most `audio + video`.
    audio, video : int
        Tokens of the clip.
    lean : float
        δ: audio keeps 1 + δ times its equal share, video 1 − δ times, before both are scaled to
        `count`; in [−1, 1].

    Returns
    -------
    int
        From one count to the next it rises by 0 or 1, so that neither modality ever grows again.
    """
    if not audio or not video:
        return count if audio else 0
    heard, seen = audio * (1 + lean), video * (1 - lean)
    quota = math.floor(count * (heard / (heard + seen)) + 0.5)
    least, most = max(count - video, 0), min(count, audio)
    if count >= 2:
        least, most = max(least, 1), min(most, count - 1)
    return min(max(quota, least), most)


def _state(state: MethodState) -> Split:
    assert isinstance(state, Split)
    return state


def _of(values: torch.Tensor | None, kept: torch.Tensor) -> torch.Tensor | None:
    """Return the values of the tokens that are kept."""
    return None if values is None else values[kept.to(values.device)]


def _joined(found: Sequence[tuple[torch.Tensor, Entry]], device: torch.device) -> Entry:
    """Return the choices in several parts as one; each comes with the tokens of its part."""
    if any(entry.states is not None for _, entry in found):
        raise UsageError(
            "@omnidelta cannot join the states that this method replaces.",
            hint="Use the method without it.",
        )
    kept, target, source, weight = [torch.arange(0, device=device)], [], [], []
    for index, entry in found:
        own = index.to(device)
        keep = own[to_device(entry.keep, device)]
        kept.append(keep)
        if entry.mix is not None:
            target.append(keep[to_device(entry.mix.kept, device)])
            source.append(own[to_device(entry.mix.source, device)])
            weight.append(to_device(entry.mix.weight, device))
    keep = torch.cat(kept).sort().values
    if not target:
        return Entry(keep)
    return mixed(keep, torch.cat(target), torch.cat(source), torch.cat(weight))
