"""FastV, random and uniform: what sets each apart."""

from __future__ import annotations

import pytest
import torch

from omnidrop.errors import BudgetError, UsageError
from omnidrop.pruning.method import Entry, EntryView, Method, Plan
from omnidrop.pruning.methods.fastv import FastV
from omnidrop.pruning.methods.random import Random
from omnidrop.pruning.methods.uniform import Uniform
from omnidrop.pruning.registry import get_method
from omnidrop.testing.simulate import clip, clip_of, prefill


def test_fastv_drops_once_after_two_layers():
    run = prefill(FastV(budget=0.3), clip_of(5000), 28)
    counts = run.plan.counts
    assert counts[:2] == (5000, 5000)
    assert len(set(counts[2:])) == 1
    assert counts[2] == pytest.approx((0.3 * 28 - 2) / 26 * 5000, abs=1)
    assert run.plan.settings["p_final"] == pytest.approx(1 - counts[2] / 5000, abs=1e-3)


@pytest.mark.parametrize(("layers", "low"), [(4, 0.5), (8, 0.25), (28, 1 / 14)])
def test_fastv_cannot_go_under_its_first_layers(layers, low):
    tokens = clip_of(1000)
    with pytest.raises(BudgetError, match="reachable") as caught:
        FastV(budget=low - 0.02).plan(tokens, layers)
    assert caught.value.reachable == pytest.approx((low, 1.0))
    for budget in (low, low + 0.02, 1.0):
        assert FastV(budget=budget).plan(tokens, layers).realised == pytest.approx(budget, abs=1e-3)


@pytest.mark.parametrize("after", [0, -1, 2.0, True, "two"])
def test_fastv_needs_a_layer_to_look(after):
    with pytest.raises(UsageError, match="after"):
        FastV(after=after)


def test_fastv_needs_a_layer_after_the_drop():
    assert FastV(budget=0.9, after=3).plan(clip_of(100), 4).counts == (100, 100, 100, 60)
    with pytest.raises(UsageError, match="at most 3"):
        FastV(budget=0.9, after=4).plan(clip_of(100), 4)


def test_random_keeps_its_draw():
    tokens = clip_of(600)
    run = prefill(Random(budget=0.25), tokens, 8, seed=1)
    assert len(set(run.plan.counts)) == 1
    assert all(torch.equal(run.survivors[0], s) for s in run.survivors)
    assert not torch.equal(run.survivors[0], prefill(Random(budget=0.25), tokens, 8).survivors[0])


def test_random_is_fair():
    tokens = clip(chunks=5, grids=1, height=2, width=2, audio=0)
    seen = torch.zeros(20)
    for seed in range(400):
        seen[prefill(Random(budget=0.25), tokens, 4, seed).survivors[0]] += 1
    assert int(seen.min()) > 60  # 100 each expected, 9 the standard deviation
    assert int(seen.max()) < 140


def test_random_by_a_schedule_keeps_omnidrops_numbers():
    run = prefill(get_method("random+random@omnidrop", budget=0.3), clip_of(5000), 28)
    assert run.plan.counts[0] == 2250
    assert run.plan.counts[-1] < 200
    with pytest.raises(UsageError, match="linear"):
        get_method("random+random@omnidrop", schedule="linear")


def test_uniform_takes_its_share_of_every_chunk_and_modality():
    tokens = clip(chunks=6, grids=2, height=4, width=4, audio=20)
    kept = tokens.select(prefill(Uniform(budget=0.25), tokens, 8).survivors[0])
    for chunk in range(6):
        here = kept.chunk == chunk
        assert int((here & kept.audio).sum()) == 5
        assert int((here & kept.video).sum()) == 8


def test_none_cannot_drop():
    with pytest.raises(BudgetError, match="keeps every token"):
        Method(budget=0.5).plan(clip(), 8)
    view = EntryView(clip(), torch.zeros(1), None, torch.Generator())
    entry = Method().enter(view, Plan(len(clip()), (1,)))
    assert isinstance(entry, Entry)
    assert len(entry.keep) == len(clip())
    with pytest.raises(NotImplementedError):
        Method().keep(None, 1)
