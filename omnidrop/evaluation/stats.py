"""Confidence intervals and tests for the difference between two methods.

Methods answer the same questions, so they are compared in pairs: only questions that one gets right
and the other wrong carry information. Questions about one clip are not independent, so the
bootstrap resamples clips, not questions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

#: 97.5th percentile of the standard normal distribution.
Z95 = 1.959963984540054
#: Resamples of a bootstrap.
DRAWS = 10_000
_BLOCK = 1 << 20  # values processed at once, to bound memory


@dataclass(frozen=True)
class Paired:
    """Two methods on the same questions.

    Attributes
    ----------
    questions, clips : int
        Answered by both.
    only_first, only_second : int
        Right in one and wrong in the other: McNemar's b and c.
    difference : float
        Accuracy of the first minus accuracy of the second.
    low, high : float
        95 % bootstrap interval of the difference, resampling clips.
    p : float
        Exact two-sided McNemar test.
    """

    questions: int
    clips: int
    only_first: int
    only_second: int
    difference: float
    low: float
    high: float
    p: float


def wilson(right: float, total: int, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's interval of a share; (0, 1) if nothing was counted.

    Source: Wilson, 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if total <= 0:
        return 0.0, 1.0
    share = right / total
    centre = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    low = (centre - half) / scale if right else 0.0  # both are exact at the ends
    high = (centre + half) / scale if right < total else 1.0
    return low, high


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p of `only_first` against `only_second` discordant pairs."""
    total, fewer = only_first + only_second, min(only_first, only_second)
    term = tail = 1  # binomial coefficients, exact however many
    for k in range(fewer):
        term = term * (total - k) // (k + 1)
        tail += term
    return min(1.0, float(2 * tail / (1 << total)))


def bootstrap(
    differences: Sequence[float] | np.ndarray,
    clusters: Sequence[object],
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[float, float]:
    """Return a 95 % bootstrap interval of a mean of clustered values.

    Parameters
    ----------
    differences : sequence of float, (n,)
        One per question.
    clusters : sequence, (n,)
        The clip of each question; clips are resampled with all their questions.
    seed : int
        Of the resampling.
    draws : int

    Returns
    -------
    low, high : float
        2.5 and 97.5 percentiles; (0, 0) without questions, and (-1, 1), the whole range of a
        difference, with one cluster, which says nothing about others.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        return 0.0, 0.0
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    if len(names) == 1:
        return -1.0, 1.0
    index = np.array([names[name] for name in clusters])
    sums = np.bincount(index, weights=values, minlength=len(names))
    sizes = np.bincount(index, minlength=len(names)).astype(np.float64)
    drawn = _drawn(len(names), draws, seed)
    step = max(1, _BLOCK // len(names))
    means = []
    for begin in range(0, draws, step):
        times = drawn[begin : begin + step].astype(np.float64)
        means.append(times @ sums / (times @ sizes))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


@lru_cache(maxsize=8)
def _drawn(clusters: int, draws: int, seed: int) -> np.ndarray:
    """Return how often each resample holds each cluster, (draws, clusters) uint8.

    Cached for pairs about the same clips: drawing takes longer than everything else.
    """
    generator = np.random.default_rng(seed)
    shares = np.full(clusters, 1 / clusters)
    step = max(1, _BLOCK // clusters)
    parts = [
        generator.multinomial(clusters, shares, min(step, draws - begin)).astype(np.uint8)
        for begin in range(0, draws, step)
    ]
    return np.concatenate(parts)


def paired(
    first: Sequence[bool], second: Sequence[bool], clips: Sequence[object], *, seed: int = 0
) -> Paired:
    """Compare two methods' marks on the same questions, in the same order."""
    one, two = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((one & ~two).sum()), int((two & ~one).sum())
    differences = one.astype(np.float64) - two
    low, high = bootstrap(differences, clips, seed=seed)
    return Paired(
        questions=len(one),
        clips=len(set(clips)),
        only_first=only_first,
        only_second=only_second,
        difference=float(differences.mean()) if len(one) else 0.0,
        low=low,
        high=high,
        p=mcnemar(only_first, only_second),
    )


def holm(values: Sequence[float]) -> list[float]:
    """Return p values with Holm's correction, in the order given.

    Source: Holm, 1979, "A simple sequentially rejective multiple test procedure".
    """
    count = len(values)
    corrected = [0.0] * count
    worst = 0.0
    for rank, index in enumerate(sorted(range(count), key=lambda i: values[i])):
        worst = max(worst, min(1.0, (count - rank) * values[index]))
        corrected[index] = worst
    return corrected
