"""OmniDrop: reduce before the LLM, then drop layer by layer what the question does not look at.

Before the LLM nothing depends on the question: audio is ranked by its encoder's own attention,
video that repeats itself is merged. Inside, early layers fuse the modalities and drop almost
nothing; past the turning point the question's attention decides, over one pool of audio and video.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch

from omnidrop.errors import UsageError
from omnidrop.moving import moved
from omnidrop.pruning import checks, schedules
from omnidrop.pruning.method import Entry, EntryView, LayerView, Method, MethodState, Plan, Rows
from omnidrop.pruning.parts import rank_stability as turnings
from omnidrop.pruning.parts.merging import merge_video, mixed, natural_count
from omnidrop.pruning.parts.select import diversify, even, spread_by_chunk, top
from omnidrop.tokens import TokenMap


@dataclass
class Turning(MethodState):
    """What OmniDrop remembers while it looks for its turning point (`turning="asl"`).

    Attributes
    ----------
    left : int
        AV tokens, summed over the layers still to come, that the budget leaves room for.
    signal : Settling
        How the ranks of the tokens have moved.
    counts : tuple of int or None
        Tokens entering each layer after the turning point, once that is found.
    """

    left: int
    signal: turnings.Settling
    counts: tuple[int, ...] | None = None


@dataclass(frozen=True)
class OmniDrop(Method):
    """Drops audio and video tokens layer by layer by the question's attention, after merging.

    Based on OmniDrop (arXiv 2605.14458).

    A value of `None` is solved for, by the rule in `schedules.omnidrop_path`; a value that is given
    stays as given. "Ours" marks what the paper leaves open.

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
    entry : {"paper", "uniform", "none"}, default "paper"
        Reduction before the LLM: audio by encoder attention and video by temporal merging; evenly
        spaced tokens of every chunk (ours, a control of the entry stage alone); or none.
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
        "asl": the turning point is picked for each question, by the signal of ASL (arXiv
        2601.07667): after the first layer where the variance of the tokens' ranks over the last 8
        layers (fewer in shallow models, see `pruning.turning`) is under `settled` of its first
        value. Until then nothing is dropped beyond entry, and from then on `schedule` completes the
        budget exactly ("step" drops once, as ASL does). The entry is that of the fixed schedule,
        and the pick comes at the latest where the budget would otherwise be overspent. It costs the
        question's attention in every layer up to there (its rows against all keys), which a fixed
        turning point asks for only where it drops, and clips share no layer between questions.
    settled : float, default 0.3
        Share of its first value at which the variance has settled (ASL).
    solve : bool, default True
        False: take the constants as they stand, all four given; `budget` is then only a name and
        the realised mean may differ, which the plan then notes (paper presets: "20 %" is 0.217).
    """

    name: ClassVar[str] = "omnidrop"
    needs_host: ClassVar[str] = ""

    schedule: schedules.Shape = "sigmoid"
    rows: Rows = "question"
    diversity: float = 0.2
    diversity_from: int | float = 0.5
    diversity_form: Literal["scaled", "raw"] = "scaled"
    entry: Literal["paper", "uniform", "none"] = "paper"
    entry_ratio: float | None = None
    p_init: float | None = None
    p_final: float | None = None
    t_mid: float | None = None
    beta: float = schedules.BETA
    audio_keep: float = 0.7
    video_prune: float = 0.8
    video_group: int = 4
    turning: Literal["fixed", "asl"] = "fixed"
    settled: float = turnings.THRESHOLD
    solve: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("schedule", self.schedule, schedules.SHAPES)
        checks.one_of("rows", self.rows, ("question", "last", "all-text"))
        checks.one_of("diversity_form", self.diversity_form, ("scaled", "raw"))
        checks.one_of("entry", self.entry, ("paper", "uniform", "none"))
        checks.one_of("turning", self.turning, ("fixed", "asl"))
        checks.switch("solve", self.solve)
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
        if self.entry == "none" and self.entry_ratio not in (None, 1.0):
            raise UsageError(
                f"Without a reduction at entry, {self.entry_ratio} of the tokens cannot enter.",
                hint="Use entry='paper', or leave entry_ratio out.",
            )
        checks.number("settled", self.settled, low=0)
        given = (self.p_init, self.p_final, self.t_mid) != (None, None, None)
        if self.turning == "asl" and (given or not self.solve):
            raise UsageError(
                "turning='asl' picks t_mid and solves the drop rates; they cannot be given too.",
                hint="Leave p_init, p_final, t_mid and solve out.",
            )
        constants = (self._entry_ratio, self.p_init, self.p_final, self.t_mid)
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
        p_init, p_final, t_mid, start = constants
        return cls(
            budget=budget,
            diversity_from=start,
            diversity_form="raw",
            entry_ratio=schedules.ENTRY_RATIO,
            p_init=p_init,
            p_final=p_final,
            t_mid=t_mid,
            solve=False,
        )

    @classmethod
    def presets(cls) -> dict[str, OmniDrop]:
        """Return the paper's schedules by name: paper-7b-30, paper-7b-20, paper-3b-30, …"""
        return {f"paper-{m.lower()}-{round(100 * b)}": cls.paper(m, b) for m, b in _PAPER}

    @classmethod
    def tunable(cls) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {
            "entry": ("paper", "uniform", "none"),
            "entry_ratio": (None, 0.15, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0),
            "t_mid": (None, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75),
            "beta": (5.0, 10.0, 20.0, 40.0, 80.0),
            "p_init": (None, 0.0, 0.02, 0.05),
            "diversity": (0.0, 0.1, 0.2, 0.4),
            "diversity_from": (0.25, 0.5, 0.75),
        }

    @property
    def _entry_ratio(self) -> float | None:
        """Entry ratio if it is fixed."""
        return 1.0 if self.entry == "none" else self.entry_ratio

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Solve the schedule for the budget on the actual token count."""
        path = schedules.omnidrop_path(
            self.budget,
            shape=self.schedule,
            entry_ratio=self._entry_ratio,
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
        signal = turnings.Settling(turnings.window(len(plan.counts)))
        return Turning(sum(plan.counts) - plan.counts[0], signal)

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Keep audio by encoder attention, and merge video that repeats itself."""
        total, count = plan.total, plan.counts[0]
        if count == total:
            return Entry(torch.arange(total))
        if self.entry == "uniform":
            return Entry(spread_by_chunk(view.tokens, count))
        audio = view.tokens.audio.cpu().nonzero().flatten()
        video = view.tokens.video.cpu().nonzero().flatten()
        seen = view.tokens.select(video)
        n_audio = self._audio_quota(len(audio), len(video), seen, count)

        if view.audio_attention is None:  # a tower that reports none: spread evenly over time
            heard = even(len(audio), n_audio)
        else:
            heard = top(view.audio_attention, n_audio)
        kept, target, source = merge_video(
            view.embeds, video, seen, count - n_audio, size=self.video_group
        )
        # How many of each is known, so the host need not know which.
        audio, video, heard = (moved(x, kept.device) for x in (audio, video, heard))
        keep = torch.cat((audio[heard], video[kept])).sort().values
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
            moved = state.signal.add(view.attention(self.rows))
            settled = moved is not None and moved < self.settled
            affordable = alive + layers_left - 1 <= state.left
            if affordable and not settled:
                state.left -= alive
                return alive
            state.counts = schedules.complete(
                alive, layers_left, state.left, view.layers, shape=self.schedule, beta=self.beta
            )
        return state.counts[-layers_left]

    def _diversity_layer(self, layers: int) -> int:
        start = self.diversity_from
        return start if isinstance(start, int) else round(start * layers)

    def _audio_quota(self, audio: int, video: int, seen: TokenMap, count: int) -> int:
        """Return how many of the `count` entering tokens are audio.

        One factor scales both modalities' paper shares; when one of them is whole, the other takes
        the rest. Each modality that exists enters with at least one token if two may enter.
        """
        if not audio or not video:
            return count if audio else 0
        wants_audio = self.audio_keep * audio
        wants_video = natural_count(seen, self.video_prune, self.video_group)
        quota = round(count * wants_audio / (wants_audio + wants_video))
        least, most = max(count - video, 0), min(count, audio)
        if count >= 2:
            least, most = max(least, 1), min(most, count - 1)
        return min(max(quota, least), most)


_SMALLEST = 1e-6  # stands for "above 0"

#: (model, budget) → p_init, p_final, t_mid, first layer with diversity.
_PAPER: dict[tuple[str, float], tuple[float, float, float, int]] = {
    ("7B", 0.3): (0.0, 0.20, 0.5, 14),
    ("7B", 0.2): (0.02, 0.50, 0.5, 14),
    ("3B", 0.3): (0.0, 0.15, 0.5, 19),
    ("3B", 0.2): (0.02, 0.50, 0.55, 19),
}
