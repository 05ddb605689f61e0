"""Budget → how many audio and video (AV) tokens enter each layer, exactly.

A `Curve` turns constants into counts. `solve` goes the other way: it walks a path of curves from
the one that keeps most to the one that keeps least, finds by bisection the place where the mean
over the layers is the budget, and settles the last few tokens in integers. It never returns another
budget: what cannot be reached within ±0.01 is a `BudgetError` that names the reachable range.

Each method chooses its path: OmniDrop's constants and the order in which they give way are in
`methods/omnidrop.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from omnidrop.errors import BudgetError
from omnidrop.pruning.method import Plan

CurveShape = Literal["sigmoid", "exponential", "step"]

#: How far the realised mean may be from the budget.
TOLERANCE = 0.01


@dataclass(frozen=True)
class Curve:
    """Constants of a schedule: `floor(p_l · surviving)` tokens are dropped after layer l.

    Shapes of the drop rate p_l over the layers 0 to L − 1:

    - sigmoid: `p_l = p_init + (p_final − p_init) · sigmoid(beta · (l/L − t_mid))`, that of OmniDrop
    - exponential: `p_l = p_init · (p_final/p_init)^(l/(L−2))`
    - step: `p_l = p_final` after one layer, so that the layers from `round(t_mid · L)` (at least 1,
      0-based) on see the smaller set; 0 after every other layer. `p_init` is not used.

    - step with `stages`: `p_final` of what is left goes at each of these shares of the depth, as
      for one step; the counts are `floor((1 − p_final)^i · entering)`, i stages passed.

    Nothing is dropped after the last layer: `l` runs from 0 to L−2.

    Parameters
    ----------
    shape : {"sigmoid", "exponential", "step"}
    entry_ratio : float
        Share of the N AV tokens that enter layer 0.
    p_init, p_final : float
        Drop rates at the two ends of the depth, in [0, 1].
    t_mid : float
        Turning point, as a share of the depth.
    beta : float
        Steepness of the sigmoid.
    stages : tuple of float
        Shares of the depth, for a step at each; then `t_mid` is not used.
    """

    shape: CurveShape = "sigmoid"
    entry_ratio: float = 1.0
    p_init: float = 0.0
    p_final: float = 0.0
    t_mid: float = 0.5
    beta: float = 20.0
    stages: tuple[float, ...] = ()

    def rates(self, layers: int) -> tuple[float, ...]:
        """Return p_l for the `layers - 1` layers after which tokens may be dropped."""
        if self.shape == "step":
            last_full = first_smaller(self.t_mid, layers) - 1
            return tuple(self.p_final if i == last_full else 0.0 for i in range(layers - 1))
        if self.shape == "exponential":
            span = max(layers - 2, 1)
            low, high = self.p_init, self.p_final
            return tuple(low ** (1 - i / span) * high ** (i / span) for i in range(layers - 1))
        return tuple(
            self.p_init
            + (self.p_final - self.p_init) * _sigmoid(self.beta * (i / layers - self.t_mid))
            for i in range(layers - 1)
        )

    def counts(self, total: int, layers: int) -> tuple[int, ...]:
        """Return how many of `total` AV tokens enter each layer; at least one enters layer 0."""
        current = min(max(round(self.entry_ratio * total), 1), total)
        if self.stages:
            turns = [first_smaller(share, layers) for share in self.stages]
            passed = [sum(turn <= i for turn in turns) for i in range(layers)]
            share = 1.0 - self.p_final
            return tuple(math.floor(share**i * current + 1e-9) for i in passed)
        counts = [current]
        for rate in self.rates(layers):
            current -= math.floor(rate * current)
            counts.append(current)
        return tuple(counts)

    def toward(self, other: Curve, share: float) -> Curve:
        """Return the curve `share` of the way to `other`, every constant in a straight line."""

        def between(a: float, b: float) -> float:
            return b if share == 1.0 else a + (b - a) * share

        return replace(
            self,
            entry_ratio=between(self.entry_ratio, other.entry_ratio),
            p_init=between(self.p_init, other.p_init),
            p_final=between(self.p_final, other.p_final),
            t_mid=between(self.t_mid, other.t_mid),
        )


def first_smaller(share: float, layers: int) -> int:
    """Return the first layer, 0-based, that sees fewer tokens after a step at a share of depth."""
    return min(max(round(share * layers), 1), max(layers - 1, 1))


def _sigmoid(x: float) -> float:
    """Return 1 / (1 + e^-x) without overflow."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)
    return e / (1.0 + e)


def solve(
    budget: float, total: int, layers: int, path: Sequence[Curve], *, settle: float = 0.0
) -> Plan:
    """Find the plan on `path` whose mean over the layers is the budget.

    Bisection finds two neighbouring curves, one at or over the budget and one at or under it.
    Where floors keep both away from it, the first layers follow the upper and the rest the lower
    one, with a single layer in between: every whole number of tokens summed over the layers can be
    had that way, so the plan is right to half a token in one layer.

    Parameters
    ----------
    budget : float
        Asked mean over layers of (AV tokens entering the layer) / total.
    total : int
        AV tokens before any reduction, N.
    layers : int
        Decoder layers, L.
    path : sequence of Curve
        From the curve that keeps most to the one that keeps least.
    settle : float
        Take a curve as it stands if its mean is this close to the budget (0: always exact).

    Raises
    ------
    BudgetError
        If no plan on the path is within ±0.01.
    """
    if total == 0:
        return Plan(0, (0,) * layers, {"note": "no audio or video tokens"})
    size = total * layers
    wanted = budget * size
    ends = [curve.counts(total, layers) for curve in path]
    sums = [sum(counts) for counts in ends]
    target = min(max(math.floor(wanted + 0.5), sums[-1]), sums[0])
    if abs(target - wanted) > TOLERANCE * size + 1e-9:
        raise refusal(budget, total, layers, sums[-1], sums[0])

    stop = next(i for i, tokens in enumerate(sums) if tokens <= target)
    curve, upper, lower = _bisect(path[max(stop - 1, 0)], path[stop], target, total, layers)
    nearest = min((upper, lower), key=lambda counts: abs(sum(counts) - wanted))
    exact = abs(sum(nearest) - wanted) <= settle * size
    counts = nearest if exact else blend(upper, lower, target)
    off = sum(abs(a - b) for a, b in zip(counts, curve.counts(total, layers), strict=True))
    return Plan(total, counts, {**describe(curve), "solved": True, "settled_tokens": off})


def solve_flat(budget: float, total: int, layers: int) -> Plan:
    """Find the plan of a method that drops once, before the LLM: the same count in every layer.

    With under 50 tokens one count cannot be within ±0.01 of every budget; then the first layers see
    one token more than the others.

    Raises
    ------
    BudgetError
        As for `solve`.
    """
    path = (
        Curve("step", entry_ratio=1.0),
        Curve("step", entry_ratio=0.0),
        Curve("step", entry_ratio=0.0, p_final=1.0),
        Curve("step", entry_ratio=0.0, p_final=1.0, t_mid=0.0),
    )
    return solve(budget, total, layers, path, settle=TOLERANCE)


def staged_path(stages: Sequence[float]) -> tuple[Curve, ...]:
    """Return the path of a method that keeps one share at each of some stages of the depth."""
    start = Curve("step", stages=tuple(stages))
    return start, replace(start, p_final=1.0)


def fixed(curve: Curve, total: int, layers: int, budget: float) -> Plan:
    """Return the plan a curve makes; nothing is solved.

    Where its mean is not within ±0.01 of the budget, a note in its settings says so.
    """
    if total == 0:
        return Plan(0, (0,) * layers, {"note": "no audio or video tokens"})
    plan = Plan(total, curve.counts(total, layers), {**describe(curve), "solved": False})
    if abs(plan.realised - budget) > TOLERANCE:
        plan.settings["note"] = (
            f"The schedule was taken as given, not solved: on {layers} layers its mean is "
            f"{plan.realised:.3f}, not {budget:g}."
        )
    return plan


def describe(curve: Curve) -> dict[str, Any]:
    """Return a curve's constants as plain values, rounded for a report."""
    constants = asdict(curve)
    if not curve.stages:
        del constants["stages"]
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in constants.items()}


def blend(upper: Sequence[int], lower: Sequence[int], target: int) -> tuple[int, ...]:
    """Return counts between two plans whose sum is `target`.

    The first layers follow `upper`, the rest `lower`, and one layer lies between: as neither rises
    and `upper` is nowhere under `lower`, the result does not rise either. (Rounding of floats can
    put a single token of `upper` under `lower`; taking the higher and the lower of the two first
    makes that harmless.)
    """
    counts = [min(pair) for pair in zip(upper, lower, strict=True)]
    missing = target - sum(counts)
    for i, most in enumerate(map(max, upper, lower)):
        step = min(most - counts[i], missing)
        counts[i] += step
        missing -= step
    return tuple(counts)


def _bisect(
    start: Curve, stop: Curve, target: int, total: int, layers: int
) -> tuple[Curve, tuple[int, ...], tuple[int, ...]]:
    """Return the nearer curve, and the counts just at or over and at or under the target."""
    upper, lower = start.counts(total, layers), stop.counts(total, layers)
    low, high = 0.0, 1.0
    for _ in range(60):
        if sum(upper) == target or sum(lower) == target:
            break
        middle = (low + high) / 2
        counts = start.toward(stop, middle).counts(total, layers)
        if sum(counts) >= target:
            low, upper = middle, counts
        else:
            high, lower = middle, counts
    share = low if sum(upper) - target <= target - sum(lower) else high
    return start.toward(stop, share), upper, lower


def refusal(budget: float, total: int, layers: int, lowest: int, highest: int) -> BudgetError:
    """Explain why a budget is out of reach."""
    size = total * layers
    low, high = lowest / size, highest / size
    reach = f"{low:.4g} to {high:.4g}" if lowest < highest else f"only {low:.4g}"
    tokens = f"{total} audio and video token{'s' if total != 1 else ''}"
    what = (
        f"A budget of {budget:g} cannot be met within ±{TOLERANCE} by these settings, "
        f"with {tokens} and {layers} layers: reachable is {reach}"
    )
    if low < budget < high:
        below = math.floor(budget * size) / size
        above = math.ceil(budget * size) / size
        return BudgetError(
            f"{what}, in steps of {1 / size:.4g}.",
            reachable=(low, high),
            hint=f"Nearest are {below:.4g} and {above:.4g}.",
        )
    return BudgetError(
        f"{what}.",
        reachable=(low, high),
        hint=f"Ask for {low if budget < low else high:.4g}, or leave more of the schedule free.",
    )
