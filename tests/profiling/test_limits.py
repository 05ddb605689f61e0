"""Limits and the budget found from them, on costs made up here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnidrop.errors import BudgetError, UsageError
from omnidrop.profiling.fit import Expected, largest, notice
from omnidrop.profiling.limits import Limits
from omnidrop.profiling.prefill_speed import PrefillSpeed, speed_through

seconds = st.floats(0.001, 100.0)


def costing(fixed: float, slope: float, least: float = 0.0, most: float = 1.0):
    def expect(budget: float) -> Expected:
        if not least <= budget <= most:
            raise BudgetError("This budget cannot be kept.")
        return Expected(budget, latency=fixed + slope * budget, memory=1e9 * budget)

    return expect


@given(seconds, seconds, seconds, st.floats(0.0, 0.6), st.floats(0.6, 1.0))
def test_the_largest_that_fits(limit, fixed, slope, least, most) -> None:
    expect, limits = costing(fixed, slope, least, most), Limits(latency=limit)
    every = []
    for step in range(1, 101):
        try:
            found = expect(step / 100)
        except BudgetError:
            continue
        if found.meets(limits):
            every.append(found)
    if every:
        assert largest(expect, limits) == every[-1]
    else:
        with pytest.raises(BudgetError, match="cannot be met: even a budget of"):
            largest(expect, limits)


@given(seconds, seconds)
def test_more_time_is_not_less_budget(one, two) -> None:
    expect = costing(0.0005, 40.0)
    found = []
    for limit in sorted((one, two)):
        try:
            found.append(largest(expect, Limits(latency=limit)).budget)
        except BudgetError:
            found.append(0.0)
    assert found[0] <= found[1]


def test_a_hole_in_the_middle_and_a_ceiling() -> None:
    def expect(budget: float) -> Expected:
        if 0.2 < budget < 0.7:
            raise BudgetError("A hole.")
        return Expected(budget, latency=budget)

    assert largest(expect, Limits(latency=0.5)).budget == 0.2
    assert largest(expect, Limits(latency=0.75)).budget == 0.75
    assert largest(expect, Limits(latency=2), ceiling=0.3).budget == 0.2
    assert largest(expect, Limits(latency=2)).budget == 1.0


def test_every_limit_counts() -> None:
    expect = costing(0.0, 10.0)
    assert largest(expect, Limits(latency=5.0, memory=0.205e9)).budget == 0.2
    assert largest(expect, Limits(latency=1.0, memory=1e9)).budget == 0.1


def test_what_is_refused_says_what_the_least_takes() -> None:
    with pytest.raises(BudgetError) as caught:
        largest(costing(1.9, 0.0, least=0.05), Limits(latency=0.5))
    text = str(caught.value)
    assert "--fit-latency 500 ms cannot be met" in text
    assert "even a budget of 0.05 is expected to take 1.9 s" in text
    assert "--fit-pixels" in text
    assert caught.value.exit_code == 2
    assert caught.value.reachable == (0.05, 1.0)


def test_a_method_that_keeps_no_budget_says_so_itself() -> None:
    with pytest.raises(BudgetError, match="This budget cannot be kept"):
        largest(costing(0.0, 1.0, least=2.0), Limits(latency=5))


@pytest.mark.parametrize(
    "given_", [{}, {"latency": 0}, {"memory": -1.0}, {"latency": float("nan")}]
)
def test_limits_that_cannot_be_meant(given_) -> None:
    with pytest.raises(UsageError):
        Limits(**given_)


def test_a_line_through_two_prefills() -> None:
    speed = speed_through(((1e9, 0.6), (9e9, 1.4)))
    assert speed.rate == pytest.approx(1e10)
    assert speed.overhead == pytest.approx(0.5)
    assert speed.seconds(5e9, 0) == pytest.approx(1.0)
    assert speed_through(((1e9, 1.0), (4e9, 0.8))) == PrefillSpeed(5e9)
    assert speed_through(((1e9, 0.1), (2e9, 1.1))).overhead == 0.0  # never negative
    assert PrefillSpeed(1e10, selection=0.01).seconds(0, 50) == pytest.approx(0.5)


def test_what_is_said() -> None:
    limits = Limits(latency=2, memory=12e9)
    found = Expected(0.18, latency=1.904, memory=8.15e8)
    assert (
        notice(limits, found)
        == "--fit-latency 2 s --fit-memory 12 GB: budget 0.18, expected 1.9 s and 815 MB."
    )
