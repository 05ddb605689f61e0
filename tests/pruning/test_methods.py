"""Properties that hold for every method: one table, one simulated engine."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from table import GIVEN, SOLVED, UNLIMITED

from omnidrop.errors import BudgetError, UsageError
from omnidrop.pruning.registry import methods, wrappers
from omnidrop.testing.methods import check_choices, clips
from omnidrop.testing.simulate import clip, clip_of, entry_view, prefill, reachable
from tests.some import some

DEPTHS = (4, 8, 16, 28, 36, 48)
SHALLOW_AND_USUAL = (4, 28)
CLIPS = clips()
#: Kinds that are checked by default.
USUAL = ("both", "audio only", "video only", "one chunk", "one token", "nothing")
check = check_choices


@pytest.mark.parametrize("kind", some(CLIPS, kept=USUAL.__contains__))
@pytest.mark.parametrize("name", [*SOLVED, *GIVEN])
def test_every_method_on_every_kind_of_clip(name, kind):
    tokens = CLIPS[kind]
    for layers in (4, 28):
        for budget in (0.05, 0.3, 0.7, 1.0) if name in SOLVED else (1.0,):
            method = SOLVED[name](budget=budget) if name in SOLVED else GIVEN[name]()
            try:
                run = check(method, tokens, layers)
            except BudgetError as error:
                assert name not in UNLIMITED or not reachable(budget, len(tokens), layers)
                low, high = error.reachable
                for end in (low, high):
                    check(SOLVED[name](budget=end), tokens, layers)
                continue
            if name in SOLVED and len(tokens):
                assert abs(run.realised - budget) <= 0.01 + 1e-9


@pytest.mark.parametrize("name", UNLIMITED)
@pytest.mark.parametrize(
    ("layers", "total"),
    [
        pytest.param(
            layers,
            total,
            marks=[] if layers in SHALLOW_AND_USUAL and total == 328 else pytest.mark.slow,
        )
        for layers in DEPTHS
        for total in (7, 60, 328, 5000)
    ],
)
def test_any_budget_is_met(name, layers, total):
    tokens = clip_of(total)
    for budget in (0.02, *(n / 20 for n in range(1, 21))):
        if not reachable(budget, total, layers):
            with pytest.raises(BudgetError):
                SOLVED[name](budget=budget).plan(tokens, layers)
            continue
        plan = SOLVED[name](budget=budget).plan(tokens, layers)
        assert abs(plan.realised - budget) <= 0.01 + 1e-9


@pytest.mark.parametrize("name", [*SOLVED, "none"])
def test_budget_one_keeps_everything(name):
    for tokens in CLIPS.values():
        method = (SOLVED | GIVEN)[name](budget=1.0)
        for layers in DEPTHS:
            run = check(method, tokens, layers)
            assert set(run.plan.counts) == {len(tokens)}
            assert run.entry.mix is None


@pytest.mark.parametrize("name", [*SOLVED, *GIVEN])
def test_same_seed_same_tokens(name):
    tokens = CLIPS["both"]
    method = SOLVED[name](budget=0.4) if name in SOLVED else GIVEN[name]()
    first, again, other = (prefill(method, tokens, 16, seed) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first.survivors, again.survivors, strict=True))
    embeds = entry_view(tokens, 5).embeds
    assert torch.equal(first.entry.take(embeds), again.entry.take(embeds))
    if not first.plan.adaptive:
        assert [len(s) for s in first.survivors] == [len(s) for s in other.survivors]


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(list(SOLVED)),
    st.floats(0.02, 1.0),
    st.integers(1, 48),
    st.integers(0, 5),
    st.integers(0, 3),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 12),
)
def test_any_clip_any_budget(name, budget, layers, chunks, grids, height, width, audio):
    tokens = clip(chunks, grids, height, width, audio)
    try:
        run = check(SOLVED[name](budget=budget), tokens, layers)
    except BudgetError as error:
        low, high = error.reachable
        assert low - 1e-9 <= 1 / max(len(tokens), 1) or name not in UNLIMITED
        assert high == 1.0
        for end in (low, high):
            check(SOLVED[name](budget=end), tokens, layers)
        return
    except UsageError:
        assert "fastv" in name
        assert layers <= 2
        return
    if len(tokens):
        assert abs(run.realised - budget) <= 0.01 + 1e-9


@pytest.mark.parametrize("name", [*SOLVED, *GIVEN])
def test_ties_are_broken_the_same_way_everywhere(name):
    """Equal scores everywhere: the choice is still fixed, and counts are right."""
    tokens = CLIPS["both"]
    method = SOLVED[name](budget=0.3) if name in SOLVED else GIVEN[name]()
    plan = method.plan(tokens, 8)

    def seen():
        return entry_view(tokens, state=method.start(plan), phrases=method.phrases)

    view = seen()
    view.embeds.fill_(1.0)
    view.audio_attention.fill_(0.5)
    entries = [method.enter(seen(), plan).keep for _ in range(2)]
    assert torch.equal(*entries)
    assert len(method.enter(view, plan).keep) == plan.counts[0]


def test_every_method_is_in_the_table():
    used = {make().name for make in (SOLVED | GIVEN).values()}
    words = {part for name in used for part in re.split(r"[+@]", name)}
    assert words == set(methods()) | set(wrappers())
    assert {name for name in used if not re.search(r"[+@]", name)} == set(methods())


@pytest.mark.parametrize("budget", [0, -0.1, 1.5, float("nan"), "half"])
def test_no_method_takes_a_senseless_budget(budget):
    for make in (*SOLVED.values(), GIVEN["none"]):
        with pytest.raises(UsageError):
            make(budget=budget)
