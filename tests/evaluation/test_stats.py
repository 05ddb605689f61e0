"""Intervals and tests against values worked out by hand or printed in the literature."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from omnidrop.evaluation.stats import bootstrap, holm, mcnemar, paired, wilson

marks = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (10, 20, 0.2993, 0.7007),  # by hand: 0.5 ± 0.2391 / 1.1921
        (15, 148, 0.0624, 0.1605),  # Newcombe 1998, table I
        (81, 263, 0.2553, 0.3662),  # the same
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=1e-4)


def test_wilson_of_nothing_knows_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_holds_the_share_and_mirrors(right: int, total: int) -> None:
    right = min(right, total)
    low, high = wilson(right, total)
    assert 0.0 <= low <= right / total <= high <= 1.0
    mirrored = wilson(total - right, total)
    assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]), abs=1e-12)


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (6, 2, 2 * (1 + 8 + 28) / 256),
        (10, 3, 2 * (1 + 13 + 78 + 286) / 8192),
        (4, 4, 1.0),
    ],
)
def test_mcnemar(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == pytest.approx(min(1.0, p), abs=1e-12)
    assert mcnemar(c, b) == mcnemar(b, c)


def test_mcnemar_of_thousands_is_quick_and_near_the_normal() -> None:
    z = 100 / math.sqrt(3900)
    assert mcnemar(2000, 1900) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.05)
    assert mcnemar(20000, 0) == 0.0


@pytest.mark.parametrize(
    ("values", "corrected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.9, 0.9], [1.0, 1.0]),
    ],
)
def test_holm(values: list[float], corrected: list[float]) -> None:
    assert holm(values) == pytest.approx(corrected)


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_never_lowers_a_p_and_keeps_their_order(values: list[float]) -> None:
    found = holm(values)
    assert all(b >= a for a, b in zip(values, found, strict=True))
    order = sorted(range(len(values)), key=values.__getitem__)
    assert all(found[i] <= found[j] for i, j in itertools.pairwise(order))


def test_bootstrap_of_equal_values_has_no_width() -> None:
    assert bootstrap([0.25] * 12, list("aabbccddeeff")) == (0.25, 0.25)
    assert bootstrap([], []) == (0.0, 0.0)


def test_bootstrap_of_one_clip_says_nothing() -> None:
    assert bootstrap([0.25] * 12, ["a"] * 12) == (-1.0, 1.0)


def test_bootstrap_is_the_same_for_the_same_seed() -> None:
    values, clips = np.random.default_rng(1).normal(size=60), [i // 3 for i in range(60)]
    assert bootstrap(values, clips, seed=4) == bootstrap(values, clips, seed=4)
    assert bootstrap(values, clips, seed=4) != bootstrap(values, clips, seed=5)


def test_bootstrap_is_about_the_normal_interval() -> None:
    values = np.random.default_rng(2).normal(size=400)
    low, high = bootstrap(values, range(400))
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_bootstrap_draws_clips_not_questions() -> None:
    clip_means = np.random.default_rng(3).normal(size=40)
    values = np.repeat(clip_means, 10)
    low, high = bootstrap(values, np.repeat(np.arange(40), 10).tolist())
    alone = bootstrap(values, range(400))
    assert high - low > 2.5 * (alone[1] - alone[0])  # by √10 in theory


def test_bootstrap_weighs_clips_by_their_questions() -> None:
    low, high = bootstrap([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"], seed=1)
    assert (low, high) == (0.0, 1.0)
    means = [
        bootstrap([1.0] * 9 + [0.0], ["a"] * 9 + list("b"), draws=1, seed=s)[0] for s in range(200)
    ]
    assert set(means) == {0.0, 0.9, 1.0}


def test_paired_by_hand() -> None:
    first = [True, True, True, False, True, False]
    second = [True, False, False, False, True, True]
    found = paired(first, second, ["a", "a", "b", "b", "c", "c"])
    assert (found.questions, found.clips) == (6, 3)
    assert (found.only_first, found.only_second) == (2, 1)
    assert found.difference == pytest.approx(1 / 6)
    assert found.p == 1.0
    assert found.low <= found.difference <= found.high


@given(marks)
def test_paired_the_other_way_round_is_the_same_with_other_signs(both) -> None:
    first, second = zip(*both, strict=True)
    clips = [i // 2 for i in range(len(both))]
    one, two = paired(first, second, clips), paired(second, first, clips)
    assert one.difference == -two.difference
    assert (one.low, one.high) == pytest.approx((-two.high, -two.low), abs=1e-12)
    assert one.p == two.p
    assert (one.only_first, one.only_second) == (two.only_second, two.only_first)


def test_paired_with_itself_differs_in_nothing() -> None:
    found = paired([True, False, True], [True, False, True], ["a", "b", "c"])
    assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


@given(st.integers(0, 2000), st.integers(1, 2000))
def test_wilson_is_scipys(right: int, total: int) -> None:
    right = min(right, total)
    known = stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert wilson(right, total) == pytest.approx((known.low, known.high), abs=1e-9)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_scipys_binomial_test(b: int, c: int) -> None:
    known = stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(known, rel=1e-9)


def test_bootstrap_of_single_questions_is_scipys_percentile_interval() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.5, 80)
    known = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    # Two draws of the same distribution; its standard deviation is 0.056.
    assert bootstrap(values, range(80), draws=20_000) == pytest.approx(known, abs=0.004)
