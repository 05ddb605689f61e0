"""OmniDrop-auto: what differs enters, what still differs stays, late layers see text alone.

Ours; nothing here is from a paper but what is named. Three measurements on a model that really
reads its clip (`benchmarks/README.md`) shaped it:

- a token's worth is what no other token around it says, not how much attention it got: short events
  are in a few tokens that look like nothing else;
- the same sound or picture at another time is another fact: the distance between two tokens is that
  of their content and that of their times;
- attention at a layer ranks what that layer reads, not what later layers will: alone it chooses
  worse than chance, and as a weight on distances it gains nothing;
- from some depth on nothing is read any more, and every token kept there is wasted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from omnidrop.errors import UsageError
from omnidrop.pruning import checks, schedules
from omnidrop.pruning.method import Entry, EntryView, LayerMethod, LayerView, Part, Plan, Rows
from omnidrop.pruning.parts.farthest_point import Windows, spread_out
from omnidrop.pruning.parts.select import shares
from omnidrop.tokens import TokenMap

#: Layers of a model → layers before the second selection, and layers that see any AV token.
#: 16: the demo model, measured. 28 and 48: the second number from SEATS (arXiv 2605.20035), whose
#: 7B and 30B cost nothing from there on; the first is the demo model's share of the depth.
DEPTHS = {16: (3, 9), 28: (5, 23), 48: (9, 39)}
#: The same as shares of the depth, for models of other depths.
DEPTH_SHARES = (0.1875, 0.82)

#: Tokens that a window keeps, at least, unless it is the whole clip. Windows of one chunk would
#: each keep a few tokens, however little there is to see in them; longer ones only take longer.
KEPT = 64

#: Tokens in a window, at most, unless they are of one chunk: their pairs are held at once.
LARGEST = 4096


@dataclass(frozen=True)
class OmniDropAuto(LayerMethod):
    """Keeps what differs, chosen again after early layers, and empties late layers.

    Based on farthest-point selection in windows, as in SEATS (https://arxiv.org/abs/2605.20035).

    Published: farthest-point selection, and the layers from which SEATS' models need no AV token.

    Ours: everything else. Tokens are chosen twice: before the LLM by how much they differ from
    others of their modality, and after the first layers again, by the states they have there. Time
    counts as a difference, too. A window has as many chunks as it takes to keep 64 tokens of it. No
    token is left from the layer on where the model has read its clip. The question is asked for
    its attention only if `power` or `keep_mass` says so.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    cache : {"own", "cut"}, default "own"
        Caches of earlier layers: each layer's own, or cut to the survivors.
    lead : float, default 2.5
        Tokens that enter, over tokens that go on after the second selection.
    fuse : int or float, optional
        Layers before the second selection: a number, or a share of the depth. By default measured
        for 16 layers, and the same share for others.
    free : int or float, optional
        Layers that see any AV token, or their share. By default measured for 16 layers, published
        for 28 and 48, 0.82 of others. A budget that does not fit into so few layers moves it up.
    time : float, default 0.1
        What a chunk of distance in time counts, on the scale of 1 − cosine; 0: content alone.
    power : float, default 0.0
        Exponent of the question's attention as a weight on distances, at the second selection; 0:
        the question has no say.
    rows : {"question", "last", "all-text"}, default "question"
        Text rows whose attention that is.
    keep_mass : float, optional
        Keep, at the second selection, no more than the fewest tokens that hold this share of the
        question's attention: easy questions then cost less than the budget.
    """

    name: ClassVar[str] = "omnidrop-auto"
    used_by: ClassVar[Mapping[str, frozenset[Part]]] = {
        "lead": frozenset({Part.SCHEDULE}),
        "fuse": frozenset({Part.SCHEDULE}),
        "free": frozenset({Part.SCHEDULE}),
        "time": frozenset({Part.ENTRY, Part.LAYERS}),
        "power": frozenset({Part.LAYERS}),
        "rows": frozenset({Part.LAYERS}),
        "keep_mass": frozenset({Part.SCHEDULE}),
    }
    former: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "choice": {
            "differing": "omnidrop-auto, without a choice",
            "even": "uniform+uniform@omnidrop-auto",
        }
    }
    needs_host: ClassVar[str] = "windows of unequal length, sorted by length"

    lead: float = 2.5
    fuse: int | float | None = None
    free: int | float | None = None
    time: float = 0.1
    power: float = 0.0
    rows: Rows = "question"
    keep_mass: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("lead", self.lead, low=1)
        checks.number("time", self.time, low=0)
        checks.number("power", self.power, low=0)
        for name in ("fuse", "free"):
            value = getattr(self, name)
            if isinstance(value, float):
                checks.number(f"{name} (a share of the depth)", value, low=0, high=1)
            elif value is not None:
                checks.whole(f"{name} (layers)", value, low=1)
        if self.keep_mass is not None:
            checks.number("keep_mass", self.keep_mass, low=1e-6, high=1)
            if self.keep_mass == 1:
                raise UsageError(
                    "A keep_mass of 1 keeps every token.", hint="Leave it out, or give less."
                )

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Values worth trying when the settings are calibrated to a model."""
        return {
            "lead": (1.0, 1.5, 2.5, 4.0),
            "fuse": (0.125, 0.1875, 0.25, 0.375),
            "free": (0.5, 0.5625, 0.625, 0.75, 0.82, 1.0),
            "time": (0.0, 0.05, 0.1, 0.2),
            "power": (0.0, 0.5, 1.0),
        }

    @property
    def question_free(self) -> bool:  # type: ignore[override]
        """Whether nothing is asked of the question, so that a second one reuses the whole clip."""
        return self.power == 0 and self.keep_mass is None

    def depths(self, layers: int) -> tuple[int, int]:
        """Return the layers before the second selection, and those that see any AV token."""
        known = DEPTHS.get(layers)
        usual = known or tuple(max(1, round(share * layers)) for share in DEPTH_SHARES)
        fuse, free = (
            own if given is None else round(given * layers) if isinstance(given, float) else given
            for given, own in zip((self.fuse, self.free), usual, strict=True)
        )
        free = min(max(free, 1), layers)
        return min(max(fuse, 1), free), free

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Find the two shares whose mean over the layers is the budget."""
        total = len(tokens)
        if not total:
            return Plan(0, (0,) * layers, {"note": "no audio or video tokens"})
        size = total * layers
        wanted = self.budget * size
        target = max(math.floor(wanted + 0.5), 1)
        if abs(target - wanted) > schedules.TOLERANCE * size + 1e-9:
            raise schedules.refusal(self.budget, total, layers, 1, size)
        fuse, free = self.depths(layers)
        free = min(max(free, math.ceil(target / total)), layers)

        def counts(share: float) -> tuple[int, ...]:
            first = round(min(self.lead * share, 1.0) * total)
            return (
                (first,) * fuse + (round(share * total),) * (free - fuse) + (0,) * (layers - free)
            )

        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (low, middle) if sum(counts(middle)) >= target else (middle, high)
        found = schedules.blend(counts(high), counts(low), target)
        settings = {
            "entry_ratio": round(found[0] / total, 6),
            "kept_ratio": round(found[fuse] / total, 6) if fuse < layers else None,
            "fuse": fuse,
            "free": free,
        }
        return Plan(total, found, settings, adaptive=self.keep_mass is not None)

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Keep the tokens of each chunk and modality that differ most from one another."""
        count = plan.counts[0]
        if count == plan.total:
            return Entry(torch.arange(plan.total))
        same = torch.ones(plan.total, device=view.embeds.device)
        return Entry(_differing(view.embeds, view.tokens, same, count, self.time))

    def keep(self, view: LayerView, count: int) -> torch.Tensor:
        """Keep what differs by now, weighted by the question's attention if that is asked for."""
        alive = len(view.tokens)
        second = view.layer + 1 == self.depths(view.layers)[0]
        if count >= alive and not (second and self.keep_mass is not None):
            return torch.arange(alive)
        if count == 0:
            return torch.empty(0, dtype=torch.int64)
        scores = torch.ones(alive)
        if self.power or self.keep_mass is not None:
            scores = view.attention(self.rows).float().cpu()
        if second and self.keep_mass is not None:
            count = min(count, fewest(scores, self.keep_mass))
        states = view.hidden()
        weights = (scores / scores.mean().clamp_min(1e-30)) ** self.power
        return _differing(states, view.tokens, weights.to(states.device), count, self.time)


def fewest(scores: torch.Tensor, mass: float) -> int:
    """Return the smallest number of tokens that hold a share of all scores.

    Parameters
    ----------
    scores : Tensor, (n,) float32
        Not negative.
    mass : float
        Share, in (0, 1).
    """
    held = scores.double().sort(descending=True).values.cumsum(0)
    return min(int((held < mass * held[-1]).sum()) + 1, len(scores))


def windows_of(tokens: TokenMap, count: int) -> Windows:
    """Put neighbouring chunks of each modality into windows.

    Parameters
    ----------
    tokens : TokenMap
        The n AV tokens.
    count : int
        How many of them are kept.

    Returns
    -------
    Windows
        Of so many chunks that `KEPT` tokens of a window are kept, of all chunks, or of those that
        have `LARGEST` tokens.
    """
    chunk, audio = tokens.chunk.cpu().long(), tokens.audio.cpu().long()
    label = torch.empty_like(chunk)
    for kind in (0, 1):
        mine = audio == kind
        own, rank = torch.unique(chunk[mine], return_inverse=True)
        groups = max(count * len(rank) // max(KEPT * len(tokens), 1), -(-len(rank) // LARGEST), 1)
        label[mine] = 2 * (rank * min(groups, len(own)) // max(len(own), 1)) + kind
    return Windows.of(label)


def times_of(tokens: TokenMap) -> torch.Tensor:
    """Return where each AV token is in time, in chunks, (n,) float32 on the tokens' device."""
    step, chunk = tokens.grid[:, 0].long(), tokens.chunk.long()
    place = 2 * (chunk - chunk.min()) + tokens.audio.long()
    bins = torch.arange(int(place.max()) + 1, device=place.device)
    first = torch.full_like(bins, torch.iinfo(torch.int64).max)
    first = first.scatter_reduce(0, place, step, "amin")
    inside = step - first[place]
    times = torch.empty(len(step), device=step.device)
    for mine in (tokens.audio, tokens.video):
        if bool(mine.any()):
            steps = inside[mine]
            times[mine] = chunk[mine] + steps / (steps.max() + 1)
    return times


def _differing(
    states: torch.Tensor, tokens: TokenMap, weights: torch.Tensor, count: int, time: float
) -> torch.Tensor:
    """Choose by farthest points, the same share of every window."""
    windows = windows_of(tokens, count)
    places = (time * times_of(tokens)).to(states.device) if time else None
    return spread_out(states, weights, windows, shares(windows.sizes, count), places)
