"""Reliability tables and the curves that correct probabilities, against plain calculations."""

from __future__ import annotations

import math
import random

import pytest

from omnidrop.evaluation.reliability import isotonic, platt, reliability


def outcomes(truth, count: int = 4000, seed: int = 3) -> tuple[list[float], list[bool]]:
    """Draw probabilities, and outcomes that are right as often as `truth` says."""
    draw = random.Random(seed)
    given = [draw.uniform(0.02, 0.98) for _ in range(count)]
    return given, [draw.random() < truth(p) for p in given]


def logistic(p: float, scale: float, shift: float) -> float:
    return 1 / (1 + math.exp(-(scale * math.log(p / (1 - p)) + shift)))


def test_a_table_by_hand() -> None:
    found = reliability([0.1, 0.3, 0.9, 1.0], [False, True, True, False], (0.0, 0.5, 1.0))
    low, high = found.bins
    assert (low.low, low.high, low.count, low.right) == (0.0, 0.5, 2, 0.5)
    assert low.probability == pytest.approx(0.2)
    assert (high.count, high.right) == (2, 0.5)
    assert high.probability == pytest.approx(0.95)
    assert found.error == pytest.approx((2 * 0.3 + 2 * 0.45) / 4)
    assert found.brier == pytest.approx((0.01 + 0.49 + 0.01 + 1.0) / 4)
    assert math.isfinite(found.log_loss)


def test_empty_bins_are_left_out_and_edges_belong_to_the_upper() -> None:
    found = reliability([0.5, 0.5], [True, False], (0.0, 0.5, 0.8, 1.0))
    assert [(b.low, b.high, b.count) for b in found.bins] == [(0.5, 0.8, 2)]


@pytest.mark.parametrize(("p", "y"), [([], []), ([0.5], [True, False])])
def test_nothing_to_compare(p: list[float], y: list[bool]) -> None:
    with pytest.raises(ValueError, match="probabilities and"):
        reliability(p, y)


def test_platt_finds_the_curve_that_outcomes_were_drawn_from() -> None:
    given, right = outcomes(lambda p: logistic(p, 0.4, 0.6))
    curve = platt(given, right)
    assert curve.scale == pytest.approx(0.4, abs=0.05)
    assert curve.shift == pytest.approx(0.6, abs=0.08)
    raw = reliability(given, right)
    fixed = reliability([curve(p) for p in given], right)
    assert fixed.error < 0.25 * raw.error
    assert fixed.log_loss < raw.log_loss


def test_platt_leaves_true_probabilities_alone() -> None:
    curve = platt(*outcomes(lambda p: p))
    assert curve.scale == pytest.approx(1.0, abs=0.08)
    assert curve.shift == pytest.approx(0.0, abs=0.08)


def test_platt_exists_where_probabilities_separate_right_from_wrong() -> None:
    curve = platt([0.1, 0.2, 0.8, 0.9], [False, False, True, True])
    assert 0 < curve(0.1) < 0.4
    assert 0.6 < curve(0.9) < 1


@pytest.mark.parametrize(
    ("p", "y"),
    [
        ([0.5, 0.5], [True, False]),
        ([0.1, 0.2, 0.8, 0.9], [True, True, False, False]),
        ([0.6, 0.7, 0.8, 0.9], [True] * 4),
    ],
)
def test_platt_refuses_what_has_no_rising_curve(p: list[float], y: list[bool]) -> None:
    with pytest.raises(ValueError, match="probab"):
        platt(p, y)


def test_isotonic_by_hand() -> None:
    curve = isotonic([0.1, 0.2, 0.3, 0.4, 0.5], [False, True, False, True, True])
    assert [curve(p) for p in (0.0, 0.1, 0.2, 0.35, 0.4, 1.0)] == [0, 0, 0.5, 0.5, 1, 1]


def test_isotonic_rises_and_keeps_the_mean() -> None:
    given, right = outcomes(lambda p: p * p, 500)
    curve = isotonic(given, right)
    steps = [curve(p) for p in sorted(given)]
    assert steps == sorted(steps)
    assert sum(steps) == pytest.approx(sum(right))
