"""Budget → counts: exact, or refused with a range that is true."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnidrop.errors import BudgetError, UsageError
from omnidrop.pruning.methods.omnidrop import omnidrop_path
from omnidrop.pruning.schedules import (
    Curve,
    CurveShape,
    blend,
    fixed,
    solve,
    solve_flat,
)
from omnidrop.testing.simulate import reachable

SHAPES = get_args(CurveShape)
DEPTHS = (4, 8, 16, 28, 36, 48)
TOTALS = (7, 60, 328, 5000)
BUDGETS = (0.02, *(n / 20 for n in range(1, 21)))

shapes = st.sampled_from(SHAPES)
budgets = st.floats(0.02, 1.0)
depths = st.integers(4, 96)
totals = st.integers(1, 3000)


def never_rises(counts: tuple[int, ...]) -> bool:
    """Tell whether counts are non-increasing and start with at least one token."""
    return counts[0] >= 1 and all(a >= b >= 0 for a, b in pairwise(counts))


def by_hand(total: int, layers: int, p_init: float, p_final: float, t_mid: float) -> list[int]:
    """Write METHODS' formula out once more, in the plainest way."""
    n = round(0.45 * total)
    counts = [n]
    for layer in range(layers - 1):
        s = 1 / (1 + math.exp(-20 * (layer / layers - t_mid)))
        n -= math.floor((p_init + (p_final - p_init) * s) * n)
        counts.append(n)
    return counts


@pytest.mark.parametrize(
    ("layers", "p_init", "p_final", "t_mid", "mean"),
    [
        (28, 0.0, 0.20, 0.5, 0.302),
        (28, 0.02, 0.50, 0.5, 0.217),
        (36, 0.0, 0.15, 0.5, 0.302),
        (36, 0.02, 0.50, 0.55, 0.214),
    ],
)
def test_paper_constants_give_the_printed_means(layers, p_init, p_final, t_mid, mean):
    curve = Curve("sigmoid", 0.45, p_init, p_final, t_mid)
    for total in (27000, 40000):  # floors weigh less the more tokens there are
        plan = fixed(curve, total, layers, mean)
        assert list(plan.counts) == by_hand(total, layers, p_init, p_final, t_mid)
        assert round(plan.realised, 3) == mean
    assert fixed(curve, 1000, layers, mean).realised == pytest.approx(mean, abs=0.004)
    assert plan.settings["solved"] is False
    assert "note" not in plan.settings
    assert f"its mean is {mean}, not 0.1." in fixed(curve, 27000, layers, 0.1).settings["note"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layers", DEPTHS)
@pytest.mark.parametrize("total", TOTALS)
def test_every_budget_is_met(shape, layers, total):
    for budget in BUDGETS:
        if not reachable(budget, total, layers):
            continue
        plan = solve(budget, total, layers, omnidrop_path(budget, shape=shape))
        assert abs(plan.realised - budget) <= 0.5 / (total * layers) + 1e-9
        assert len(plan.counts) == layers
        assert never_rises(plan.counts)


@settings(max_examples=150, deadline=None)
@given(shapes, budgets, totals, depths)
def test_any_budget_any_depth_any_count(shape, budget, total, layers):
    try:
        plan = solve(budget, total, layers, omnidrop_path(budget, shape=shape))
    except BudgetError as error:
        # With a free entry only a handful of tokens cannot be divided finely enough.
        assert not reachable(budget, total, layers)
        low, high = error.reachable
        assert (low, high) == (1 / (total * layers), 1.0)
        return
    assert abs(plan.realised - budget) <= 0.01 + 1e-9
    assert never_rises(plan.counts)


@settings(max_examples=150, deadline=None)
@given(
    shapes,
    budgets,
    totals,
    depths,
    st.none() | st.floats(0.05, 1.0),
    st.none() | st.floats(0.0, 0.4),
    st.none() | st.floats(0.4, 1.0),
    st.none() | st.floats(0.2, 0.9),
)
def test_given_constants_stay_and_refusals_are_true(
    shape, budget, total, layers, entry_ratio, p_init, p_final, t_mid
):
    given_values = {
        "entry_ratio": entry_ratio,
        "p_init": p_init,
        "p_final": p_final,
        "t_mid": t_mid,
    }

    def plan_at(asked: float):
        return solve(asked, total, layers, omnidrop_path(asked, shape=shape, **given_values))

    try:
        plan = plan_at(budget)
    except BudgetError as error:
        low, high = error.reachable
        for end in (low, high):
            assert abs(plan_at(end).realised - end) <= 1e-9
        hint, within = error.hint, low <= budget <= high
        assert within == ("Nearest" in hint)
        assert within or budget < low - 0.01 or budget > high + 0.01
        return
    assert abs(plan.realised - budget) <= 0.01 + 1e-9
    assert never_rises(plan.counts)
    for name, value in given_values.items():
        if value is not None:
            assert plan.settings[name] == round(value, 6)


@settings(max_examples=100, deadline=None)
@given(shapes, budgets, st.integers(1, 2000), st.integers(1, 60), st.booleans())
def test_counts_never_rise_along_a_path(shape, budget, total, layers, all_enter):
    """But for rounding: a rate of 1 and one of 1 − 1e-16 differ by one token."""
    path = omnidrop_path(budget, shape=shape, entry_ratio=1.0 if all_enter else None)
    for curve, after in pairwise(path):
        previous = curve.counts(total, layers)
        for share in (0.25, 0.5, 1.0):
            counts = curve.toward(after, share).counts(total, layers)
            assert all(a >= b - 1 for a, b in zip(previous, counts, strict=True))
            previous = counts


def test_rule_passes_through_the_paper():
    """At the presets' realised means the solver finds nearly the paper's constants."""
    for layers, p_final in ((28, 0.20), (36, 0.15)):
        plan = solve(0.302, 20000, layers, omnidrop_path(0.302))
        assert plan.settings["entry_ratio"] == pytest.approx(0.45, abs=0.005)
        assert plan.settings["p_final"] == pytest.approx(p_final, abs=0.01)
        assert plan.settings["p_init"] == 0.0
        assert plan.settings["t_mid"] == 0.5
    plan = solve(0.2, 20000, 28, omnidrop_path(0.2))
    assert plan.settings["p_final"] == 0.5
    assert plan.settings["p_init"] == 0.02
    assert plan.settings["entry_ratio"] == pytest.approx(0.45 * 0.2 / 0.217, abs=0.003)


@pytest.mark.slow
def test_rule_is_smooth():
    """A little more budget never means many fewer tokens in any layer."""
    before = None
    for step in range(20, 1001):
        budget = step / 1000
        counts = solve(budget, 10000, 28, omnidrop_path(budget)).counts
        if before is not None:
            assert max(abs(a - b) for a, b in zip(before, counts, strict=True)) < 120
        before = counts


def test_without_entry_reduction_the_turning_point_moves_early():
    path = omnidrop_path(0.15, entry_ratio=1.0)
    plan = solve(0.15, 5000, 28, path)
    assert plan.counts[0] == 5000
    assert plan.settings["t_mid"] < 0.2
    assert plan.settings["p_final"] == 1.0
    with pytest.raises(BudgetError, match=r"0\.125 to 1") as caught:
        solve(0.1, 5000, 8, path)
    assert caught.value.reachable == (0.125, 1.0)
    assert caught.value.exit_code == 2


def test_everything_fixed_is_met_or_refused():
    constants = {"entry_ratio": 0.45, "p_init": 0.0, "p_final": 0.2, "t_mid": 0.5}
    assert solve(0.3, 9000, 28, omnidrop_path(0.3, **constants)).realised == pytest.approx(
        0.3024, abs=1e-3
    )
    with pytest.raises(BudgetError, match=r"only 0\.302"):
        solve(0.5, 9000, 28, omnidrop_path(0.5, **constants))


def test_falling_rate_is_refused():
    with pytest.raises(UsageError, match="fall with depth"):
        omnidrop_path(0.3, p_init=0.5, p_final=0.2)


def test_too_few_tokens_names_the_nearest():
    with pytest.raises(BudgetError, match=r"Nearest are 0\.25 and 0\.5") as caught:
        solve(0.35, 1, 4, omnidrop_path(0.35))
    assert caught.value.reachable == (0.25, 1.0)
    assert solve(0.5, 1, 4, omnidrop_path(0.5)).counts == (1, 1, 0, 0)


def test_a_clip_without_tokens():
    assert solve(0.3, 0, 5, omnidrop_path(0.3)).counts == (0,) * 5
    assert solve(0.3, 0, 5, omnidrop_path(0.3)).realised == 1.0
    assert fixed(Curve(), 0, 5, 0.3).counts == (0,) * 5


def test_shapes_by_hand():
    step = Curve("step", entry_ratio=0.5, p_final=0.75, t_mid=0.5)
    assert step.counts(16, 4) == (8, 8, 2, 2)
    exponential = Curve("exponential", p_init=0.125, p_final=0.5)
    assert exponential.rates(4) == pytest.approx((0.125, 0.25, 0.5))
    assert exponential.counts(64, 4) == (64, 56, 42, 21)
    assert Curve("exponential", p_init=0.0, p_final=0.5).rates(4) == (0.0, 0.0, 0.5)
    assert Curve(beta=1e4, t_mid=2.0, p_final=1.0).rates(3) == (0.0, 0.0)
    assert Curve("step", p_final=0.5).counts(9, 1) == (9,)


@pytest.mark.parametrize("total", [1, 3, 7, 60, 5000])
@pytest.mark.parametrize("layers", DEPTHS)
def test_flat_keeps_one_count_where_it_can(total, layers):
    for budget in BUDGETS:
        try:
            plan = solve_flat(budget, total, layers)
        except BudgetError:
            assert not reachable(budget, total, layers)
            continue
        assert abs(plan.realised - budget) <= 0.01 + 1e-9
        assert max(plan.counts) - min(plan.counts) <= 1
        if total >= 60:
            assert len(set(plan.counts)) == 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1), st.data())
def test_blend_reaches_every_sum(pairs, data):
    upper, lower = (sorted(side, reverse=True) for side in zip(*pairs, strict=True))
    sums = sum(map(min, upper, lower)), sum(map(max, upper, lower))
    target = data.draw(st.integers(*sums))
    counts = blend(upper, lower, target)
    assert sum(counts) == target
    assert list(counts) == sorted(counts, reverse=True)
