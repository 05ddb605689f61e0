"""OmniDrop: reduce before the LLM, then drop layer by layer what the question does not attend to.

Before the LLM nothing depends on the question: audio is ranked by its encoder's own attention,
video that repeats itself is merged. Inside, early layers fuse the modalities and drop almost
nothing; past the turning point the question's attention decides, over one pool of audio and video.

This file also holds the schedule: constants and the order in which they give way (`omnidrop_path`),
and a schedule completed from a turning point found on the way (`complete`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch

from omnidrop.errors import UsageError
from omnidrop.pruning import checks, schedules
from omnidrop.pruning.method import (
    Entry,
    EntryView,
    LayerMethod,
    LayerView,
    MethodState,
    Part,
    Plan,
    Rows,
)
from omnidrop.pruning.parts import rank_stability
from omnidrop.pruning.parts.merging import merge_video, mixed, natural_count
from omnidrop.pruning.parts.select import diversify, even, top
from omnidrop.tokens import TokenMap
from omnidrop.transfers import to_device

BETA = 20.0  # paper
T_MID = 0.5  # paper: 0.5, and 0.55 for the smaller model at 20 %
ENTRY_RATIO = 0.45  # paper, at 30 % and 20 %
P_INIT_LOW = 0.02  # paper, at 20 %; 0 at 30 %

# Ours, where the paper is silent.
_ENTRY_PER_BUDGET = 1.5  # 0.45 / 0.30: above 30 % the paper's 30 % schedule is scaled up
_P_FINAL_CAP = {"sigmoid": 0.5, "exponential": 0.5, "step": 0.9}  # 0.5: the paper's highest
_P_INIT_EXPONENTIAL = 0.001  # a geometric curve cannot start at 0
_T_EARLIEST = -1.0  # at beta = 20 the sigmoid is 1 - 2e-9 at layer 0: everything drops at once


@dataclass
class Turning(MethodState):
    """What OmniDrop remembers while it looks for its turning point (`turning="asl"`).

    Attributes
    ----------
    left : int
        AV tokens, summed over the layers still to come, that the budget leaves room for.
    signal : RankMovement
        How the ranks of the tokens have moved.
    counts : tuple of int or None
        Tokens entering each layer after the turning point, once that is found.
    """

    left: int
    signal: rank_stability.RankMovement
    counts: tuple[int, ...] | None = None


@dataclass(frozen=True)
class OmniDrop(LayerMethod):
    """Drops audio and video tokens layer by layer by the question's attention, after merging.

    Based on OmniDrop (https://arxiv.org/abs/2605.14458).

    Published: before the LLM audio is kept by its encoder's attention and repeated video is merged;
    inside, the drop rate rises as a sigmoid over depth (formula: `schedules.Curve`) and the
    question's attention decides, with temporal diversity from the middle on; constants for two
    models at 30 and 20 %.

    Ours: every other budget, solved by the rule of `omnidrop_path`. A setting of `None` is solved
    for, one that is given stays as given.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    cache : {"own", "cut"}, default "own"
        Caches of earlier layers: each layer's own, or cut to the survivors.
    schedule : {"sigmoid", "exponential", "step"}, default "sigmoid"
        Shape of the drop rate over depth (paper: sigmoid; the others are ablations).
    rows : {"question", "last", "all-text"}, default "question"
        Text rows whose attention is the relevance (ours: the user's words, no chat template).
    diversity : float, default 0.2
        Lambda of temporal diversity (paper); 0 turns it off.
    diversity_from : int or float, default 0.5
        First layer with diversity: a whole number is a 0-based layer, a fraction a share of the
        depth (paper: layer 14 of 28, 19 of 36).
    diversity_form : {"scaled", "raw"}, default "scaled"
        Relevance min-max scaled over the candidates (ours), or as it is (paper).
    entry_ratio : float, optional
        Share of the N tokens that enter layer 0 (paper: 0.45).
    p_init, p_final, t_mid : float, optional
        Drop rates at the two ends of the depth and the turning point as a share of it.
    beta : float, default 20
        Steepness of the sigmoid (paper).
    audio_keep : float, default 0.7
        Share of audio kept at entry (paper). Audio's and video's shares are multiplied by one
        common factor so that exactly the planned number enters (ours); neither exceeds its whole.
    video_prune : float, default 0.8
        Share dropped of every grid of a group but the first (paper).
    video_group : int, default 4
        Temporal grids per group (paper: four frames; see `merging`).
    turning : {"fixed", "asl"}, default "fixed"
        "asl": the turning point is picked for each question, by the signal of ASL
        (https://arxiv.org/abs/2601.07667): after the first layer where the variance of the tokens'
        ranks over the last 8 layers (fewer in shallow models, see `parts.rank_stability`) is under
        `settled` of its first value. Until then nothing is dropped but at entry, and from then on
        `schedule` completes the budget exactly ("step" drops once, as ASL does). What enters is
        that of the fixed schedule, and the turning point comes at the latest where the budget would
        otherwise be overspent. This computes the question's attention in every layer up to there,
        where a fixed turning point does so only where it drops, and questions about a clip share no
        layer.
    settled : float, default 0.3
        Share of its first value at which the variance has settled (ASL).
    solve : bool, default True
        False: take the constants as they stand, all four given; `budget` is then only a name and
        the realised mean may differ, which the plan then notes (paper presets: "20 %" is 0.217).
    """

    name: ClassVar[str] = "omnidrop"
    entry_field: ClassVar[str | None] = "entry_ratio"
    used_by: ClassVar[Mapping[str, frozenset[Part]]] = {
        **dict.fromkeys(("audio_keep", "video_prune", "video_group"), frozenset({Part.ENTRY})),
        **dict.fromkeys(
            ("rows", "diversity", "diversity_from", "diversity_form"), frozenset({Part.LAYERS})
        ),
        **dict.fromkeys(
            ("schedule", "entry_ratio", "p_init", "p_final", "t_mid", "beta", "turning", "settled"),
            frozenset({Part.SCHEDULE}),
        ),
        "solve": frozenset({Part.SCHEDULE}),
    }
    former: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "entry": {
            "paper": "omnidrop, without an entry",
            "uniform": "uniform+omnidrop",
            "none": "none+omnidrop",
        }
    }
    needs_host: ClassVar[str] = ""

    schedule: schedules.CurveShape = "sigmoid"
    rows: Rows = "question"
    diversity: float = 0.2
    diversity_from: int | float = 0.5
    diversity_form: Literal["scaled", "raw"] = "scaled"
    entry_ratio: float | None = None
    p_init: float | None = None
    p_final: float | None = None
    t_mid: float | None = None
    beta: float = BETA
    audio_keep: float = 0.7
    video_prune: float = 0.8
    video_group: int = 4
    turning: Literal["fixed", "asl"] = "fixed"
    settled: float = rank_stability.THRESHOLD
    solve: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("diversity", self.diversity, low=0)
        if isinstance(self.diversity_from, float):
            checks.number(
                "diversity_from (a share of the depth)", self.diversity_from, low=0, high=1
            )
        else:
            checks.whole("diversity_from (a layer)", self.diversity_from, low=0)
        checks.number("beta", self.beta, low=_SMALLEST)
        checks.number("audio_keep", self.audio_keep, low=_SMALLEST, high=1)
        checks.number("video_prune", self.video_prune, low=0, high=1)
        checks.whole("video_group", self.video_group, low=1)
        for name in ("entry_ratio", "p_init", "p_final"):
            if getattr(self, name) is not None:
                checks.number(name, getattr(self, name), low=0, high=1)
        if self.t_mid is not None:
            checks.number("t_mid", self.t_mid)
        checks.number("settled", self.settled, low=0)
        given = (self.p_init, self.p_final, self.t_mid) != (None, None, None)
        if self.turning == "asl" and (given or not self.solve):
            raise UsageError(
                "turning='asl' picks t_mid and solves the drop rates; they cannot be given too.",
                hint="Leave p_init, p_final, t_mid and solve out.",
            )
        constants = (self.entry_ratio, self.p_init, self.p_final, self.t_mid)
        if not self.solve and None in constants:
            raise UsageError(
                "With solve=False the schedule needs entry_ratio, p_init, p_final and t_mid.",
                hint="Give all four, or leave solve on.",
            )

    @classmethod
    def paper(cls, model: str, budget: float) -> OmniDrop:
        """Return a schedule exactly as the paper prints it, with diversity on raw scores.

        Parameters
        ----------
        model : {"7B", "3B"}
        budget : {0.3, 0.2}
            The paper's name for it; the realised means are 0.302 and 0.217 (7B), 0.302 and 0.214
            (3B).
        """
        constants = _PAPER.get((model.upper(), budget))
        if constants is None:
            known = ", ".join(f"{m} at {b}" for m, b in _PAPER)
            raise UsageError(
                f"The paper gives no schedule for {model} at {budget}.",
                hint=f"It has {known}; OmniDrop(budget={budget}) solves any other.",
            )
        return cls._as_given(budget, constants)

    @classmethod
    def _as_given(cls, budget: float, constants: tuple[float, float, float, int]) -> OmniDrop:
        """Return a schedule with given constants and nothing solved."""
        p_init, p_final, t_mid, start = constants
        return cls(
            budget=budget,
            diversity_from=start,
            diversity_form="raw",
            entry_ratio=ENTRY_RATIO,
            p_init=p_init,
            p_final=p_final,
            t_mid=t_mid,
            solve=False,
        )

    @classmethod
    def presets(cls) -> dict[str, OmniDrop]:
        """Return fixed schedules by name.

        The paper's are paper-7b-30, paper-7b-20, paper-3b-30, …; scaled-30b-30 and scaled-30b-20
        are ours, for 48 layers: those of the 7B, with the last rate lowered until as many tokens
        remain on average.
        """
        paper = {f"paper-{m.lower()}-{round(100 * b)}": cls.paper(m, b) for m, b in _PAPER}
        scaled = {
            f"scaled-30b-{round(100 * budget)}": cls._as_given(budget, constants)
            for budget, constants in _SCALED.items()
        }
        return {**paper, **scaled}

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {
            "entry_ratio": (None, 0.15, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0),
            "t_mid": (None, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75),
            "beta": (5.0, 10.0, 20.0, 40.0, 80.0),
            "p_init": (None, 0.0, 0.02, 0.05),
            "diversity": (0.0, 0.1, 0.2, 0.4),
            "diversity_from": (0.25, 0.5, 0.75),
        }

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Solve the schedule for the budget on the actual token count."""
        path = omnidrop_path(
            self.budget,
            shape=self.schedule,
            entry_ratio=self.entry_ratio,
            p_init=self.p_init,
            p_final=self.p_final,
            t_mid=self.t_mid,
            beta=self.beta,
        )
        if not self.solve:
            return schedules.fixed(path[0], len(tokens), layers, self.budget)
        plan = schedules.solve(self.budget, len(tokens), layers, path)
        if self.turning == "asl" and plan.counts[-1] < plan.counts[0]:
            return replace(plan, adaptive=True)
        return plan

    def start(self, plan: Plan) -> MethodState:
        """Remember nothing, or watch for the turning point."""
        if not plan.adaptive:
            return MethodState()
        signal = rank_stability.RankMovement(rank_stability.window(len(plan.counts)))
        return Turning(sum(plan.counts) - plan.counts[0], signal)

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Keep audio by encoder attention, and merge video that repeats itself."""
        total, count = plan.total, plan.counts[0]
        if count == total:
            return Entry(torch.arange(total))
        audio = view.tokens.audio.cpu().nonzero().flatten()
        video = view.tokens.video.cpu().nonzero().flatten()
        video_tokens = view.tokens.select(video)
        n_audio = self._audio_quota(len(audio), len(video), video_tokens, count)

        if view.audio_attention is None:  # an encoder that reports none: even
            kept_audio = even(len(audio), n_audio)
        else:
            kept_audio = top(view.audio_attention, n_audio)
        kept, target, source = merge_video(
            view.embeds, video, video_tokens, count - n_audio, size=self.video_group
        )
        # How many of each is known, so the host need not know which.
        audio, video, kept_audio = (to_device(x, kept.device) for x in (audio, video, kept_audio))
        keep = torch.cat((audio[kept_audio], video[kept])).sort().values
        return mixed(keep, video[target], video[source])

    def keep(self, view: LayerView, count: int) -> torch.Tensor:
        """Drop what the question attends to least, sparing distant moments from the middle on."""
        if isinstance(view.state, Turning):
            count = self._turn(view, view.state)
            if count == len(view.tokens):
                return torch.arange(count)
        scores = view.attention(self.rows)
        if not self.diversity or view.layer < self._diversity_layer(view.layers):
            return top(scores, count)
        return diversify(
            scores,
            view.tokens.chunk.to(scores.device),
            len(scores) - count,
            self.diversity,
            scaled=self.diversity_form == "scaled",
        )

    def _turn(self, view: LayerView, state: Turning) -> int:
        """Return how many tokens stay when the turning point is picked on the way."""
        alive, layers_left = len(view.tokens), view.layers - 1 - view.layer
        if state.counts is None:
            change = state.signal.add(view.attention(self.rows))
            settled = change is not None and change < self.settled
            affordable = alive + layers_left - 1 <= state.left
            if affordable and not settled:
                state.left -= alive
                return alive
            state.counts = complete(
                alive, layers_left, state.left, view.layers, shape=self.schedule, beta=self.beta
            )
        return state.counts[-layers_left]

    def _diversity_layer(self, layers: int) -> int:
        start = self.diversity_from
        return start if isinstance(start, int) else round(start * layers)

    def _audio_quota(self, audio: int, video: int, video_tokens: TokenMap, count: int) -> int:
        """Return how many of the `count` entering tokens are audio.

        One factor scales both modalities' paper shares; when one of them is whole, the other takes
        the rest. Each modality that exists enters with at least one token if two may enter.
        """
        if not audio or not video:
            return count if audio else 0
        wants_audio = self.audio_keep * audio
        wants_video = natural_count(video_tokens, self.video_prune, self.video_group)
        quota = round(count * wants_audio / (wants_audio + wants_video))
        least, most = max(count - video, 0), min(count, audio)
        if count >= 2:
            least, most = max(least, 1), min(most, count - 1)
        return min(max(quota, least), most)


def omnidrop_path(
    budget: float,
    *,
    shape: schedules.CurveShape = "sigmoid",
    entry_ratio: float | None = None,
    p_init: float | None = None,
    p_final: float | None = None,
    t_mid: float | None = None,
    beta: float = BETA,
) -> tuple[schedules.Curve, ...]:
    """Return the curves that `schedules.solve` walks along for OmniDrop, most tokens first.

    The paper prints constants for four cases only, so the rule is ours; it passes through the
    paper's constants where the paper has some.

    A constant that is given stays as given. Those left `None` start here:

    - `entry_ratio`: 0.45 up to a budget of 0.3 (paper), then 1.5 · budget, up to 1;
    - `p_init`: 0.02 up to a budget of 0.2, 0 from 0.3 on (paper), a straight line between
      (exponential: at least 0.001);
    - `t_mid`: 0.5 (paper).

    and give way in this order until the budget is met:

    1. `p_final`, from `p_init` up to 0.5, the paper's highest (step: 0.9);
    2. `entry_ratio`, downwards: the late layers keep a share of what entered;
    3. `p_final`, up to 1;
    4. `t_mid`, towards the first layer;
    5. `p_init`, up to `p_final`: at its end nothing is left after layer 0.

    With `entry_ratio` free, 2 reaches every budget that some tokens in every layer can; 3 to 5 are
    for a fixed entry and for a handful of tokens. Upwards, `p_init` falls to 0 and `entry_ratio`
    rises to 1.

    Returns
    -------
    tuple of Curve
        Neighbours differ in few constants, and counts never rise along the path.
    """
    if p_init is not None and p_final is not None and p_final < p_init:
        raise UsageError(
            f"The drop rate cannot fall with depth: p_final {p_final} is under p_init {p_init}.",
            hint="Raise p_final, lower p_init, or leave p_final out to have it solved.",
        )
    ceiling = 1.0 if p_final is None else p_final
    start = (
        min(max(_ENTRY_PER_BUDGET * budget, ENTRY_RATIO), 1.0)
        if entry_ratio is None
        else entry_ratio
    )
    slow = P_INIT_LOW * min(max((0.3 - budget) / 0.1, 0.0), 1.0)
    if shape == "exponential":
        slow = max(slow, _P_INIT_EXPONENTIAL)
    slow = min(slow, ceiling) if p_init is None else p_init
    floor = 0.0 if p_init is None else p_init
    cap = max(_P_FINAL_CAP[shape], slow) if p_final is None else p_final
    first = T_MID if t_mid is None else t_mid

    curve = schedules.Curve(
        shape=shape,
        entry_ratio=1.0 if entry_ratio is None else entry_ratio,
        p_init=floor,
        p_final=floor if p_final is None else p_final,
        t_mid=first,
        beta=beta,
    )
    path = [curve]

    def then(**changes: float) -> None:
        step = replace(path[-1], **changes)  # type: ignore[arg-type]
        if step != path[-1]:
            path.append(step)

    then(entry_ratio=start)
    then(p_init=slow, p_final=slow if p_final is None else p_final)
    then(p_final=cap)
    then(entry_ratio=0.0 if entry_ratio is None else entry_ratio)
    then(p_final=ceiling)
    then(t_mid=min(_T_EARLIEST, first) if t_mid is None else t_mid)
    then(p_init=ceiling if p_init is None else p_init)
    return tuple(path)


def complete(
    alive: int,
    left: int,
    spend: int,
    layers: int,
    *,
    shape: schedules.CurveShape,
    beta: float = BETA,
) -> tuple[int, ...]:
    """Return the counts of the layers left, for a schedule whose turning point is here.

    Parameters
    ----------
    alive : int
        Tokens that have just passed a layer.
    left : int
        Layers still to come.
    spend : int
        Tokens, summed over those layers, that may still enter; kept exactly.
    layers : int
        Depth of the model, which sets how fast a sigmoid or an exponential rises.
    shape : {"sigmoid", "exponential", "step"}
        "step" drops now and once; the others let their drop rate rise from here on.
    """
    if not alive or not left:
        return (0,) * left
    depth = left + 1
    low = _P_INIT_EXPONENTIAL if shape == "exponential" else 0.0
    start = schedules.Curve(shape, p_init=low, p_final=low, t_mid=0.0, beta=beta * depth / layers)
    path = (
        schedules.Curve(shape, t_mid=0.0),
        start,
        replace(start, p_final=1.0),
        replace(start, p_init=1.0, p_final=1.0),
    )
    spend = min(max(spend, 0), alive * left)
    return schedules.solve((alive + spend) / (alive * depth), alive, depth, path).counts[1:]


_SMALLEST = 1e-6  # stands for "above 0"

#: (model, budget) → p_init, p_final, t_mid, first layer with diversity.
_PAPER: dict[tuple[str, float], tuple[float, float, float, int]] = {
    ("7B", 0.3): (0.0, 0.20, 0.5, 14),
    ("7B", 0.2): (0.02, 0.50, 0.5, 14),
    ("3B", 0.3): (0.0, 0.15, 0.5, 19),
    ("3B", 0.2): (0.02, 0.50, 0.55, 19),
}

#: Budget → the same for 48 layers (ours).
_SCALED: dict[float, tuple[float, float, float, int]] = {
    0.3: (0.0, 0.11, 0.5, 24),
    0.2: (0.02, 0.14, 0.5, 24),
}
