"""Whether a model's probabilities are true: reliability tables, and curves that correct them.

Of answers that were given 80 %, four fifths should be right. `reliability` shows how far that is
so, `platt` finds the curve that makes it so (`omnidrop.models.calibration`), and `isotonic` the
best rising steps, to compare with. Fit on some clips and judge on others.

    curve = platt(probabilities, right)
    table = reliability([curve(p) for p in others], right_of_others)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from omnidrop.models.calibration import Curve

_EDGE = 1e-9
_ROUNDS = 100


@dataclass(frozen=True)
class Bin:
    """Answers whose probability lies in one interval.

    Attributes
    ----------
    low, high : float
        The interval, `high` excluded unless it is 1.
    count : int
    probability : float
        Mean of the probabilities.
    right : float
        Share of right answers.
    """

    low: float
    high: float
    count: int
    probability: float
    right: float


@dataclass(frozen=True)
class Reliability:
    """How true probabilities are.

    Attributes
    ----------
    bins : tuple of Bin
        Empty ones left out.
    error : float
        Expected calibration error: mean distance of `probability` and `right` of the bins, weighted
        by their counts.
    brier : float
        Mean squared distance of probability and outcome.
    log_loss : float
        Mean of -log(probability of the outcome), in nats.
    """

    bins: tuple[Bin, ...]
    error: float
    brier: float
    log_loss: float


def reliability(
    probabilities: Sequence[float],
    right: Sequence[bool],
    edges: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0),
) -> Reliability:
    """Compare probabilities with outcomes.

    Parameters
    ----------
    probabilities : sequence of float, (n,)
    right : sequence of bool, (n,)
    edges : sequence of float
        Of the bins, rising from 0 to 1.

    Raises
    ------
    ValueError
        If there is nothing to compare, or the lengths differ.
    """
    if not len(probabilities) or len(probabilities) != len(right):
        raise ValueError(f"{len(probabilities)} probabilities and {len(right)} outcomes")
    p, y = np.asarray(probabilities, float), np.asarray(right, float)
    place = np.clip([bisect_right(edges, value) - 1 for value in p], 0, len(edges) - 2)
    bins = []
    for index in range(len(edges) - 1):
        inside = place == index
        if inside.any():
            found = p[inside].mean(), y[inside].mean()
            bins.append(Bin(edges[index], edges[index + 1], int(inside.sum()), *map(float, found)))
    safe = np.clip(p, _EDGE, 1 - _EDGE)
    return Reliability(
        bins=tuple(bins),
        error=sum(b.count * abs(b.probability - b.right) for b in bins) / len(p),
        brier=float(np.mean((p - y) ** 2)),
        log_loss=float(-np.mean(y * np.log(safe) + (1 - y) * np.log(1 - safe))),
    )


def platt(probabilities: Sequence[float], right: Sequence[bool]) -> Curve:
    """Fit log-odds of being right as a line over the log-odds of the probability.

    Maximum likelihood by Newton's method, with Platt's smoothed targets (n + 1) / (n + 2) and
    1 / (m + 2), so that the fit exists even if probabilities separate right from wrong.

    Parameters
    ----------
    probabilities : sequence of float, (n,)
    right : sequence of bool, (n,)

    Raises
    ------
    ValueError
        If there are fewer than two different probabilities, or more probable answers are not more
        often right.
    """
    y = np.asarray(right, bool)
    x = _log_odds(probabilities)
    if len(np.unique(x)) < 2:
        raise ValueError("at least two different probabilities are needed")
    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))
    matrix = np.stack([x, np.ones_like(x)], 1)
    weights = np.array([1.0, 0.0])
    for _ in range(_ROUNDS):
        p = 1 / (1 + np.exp(-matrix @ weights))
        slope = matrix.T @ (target - p)
        curvature = (matrix * (p * (1 - p))[:, None]).T @ matrix + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        # A step of limited size: far from the solution the curvature says little.
        weights += step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-9:
            break
    scale, shift = map(float, weights)
    if scale < 1e-6:
        raise ValueError("more probable answers are not more often right")
    return Curve(scale, shift)


def isotonic(probabilities: Sequence[float], right: Sequence[bool]) -> Callable[[float], float]:
    """Fit the rising steps that are nearest to the outcomes (pool adjacent violators).

    Parameters
    ----------
    probabilities : sequence of float, (n,)
    right : sequence of bool, (n,)
    """
    pairs = sorted(zip(probabilities, map(float, right), strict=True))
    starts: list[float] = []
    pools: list[list[float]] = []  # sum and count
    for value, outcome in pairs:
        if starts and starts[-1] == value:
            pools[-1][0] += outcome
            pools[-1][1] += 1
        else:
            starts.append(value)
            pools.append([outcome, 1.0])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] >= pools[-1][0] * pools[-2][1]:
            total, count = pools.pop()
            starts.pop()
            pools[-1][0] += total
            pools[-1][1] += count
    levels = [total / count for total, count in pools]

    def curve(probability: float) -> float:
        return levels[max(bisect_right(starts, probability) - 1, 0)]

    return curve


def _log_odds(probabilities: Sequence[float]) -> np.ndarray:
    safe = np.clip(np.asarray(probabilities, float), _EDGE, 1 - _EDGE)
    return np.log(safe) - np.log1p(-safe)


__all__ = ["Bin", "Reliability", "isotonic", "platt", "reliability"]
