"""The turning point picked per question: the signal, and the budget that is met all the same."""

from __future__ import annotations

from statistics import pvariance

import pytest
import torch

from omnidrop.errors import UsageError
from omnidrop.pruning.methods.omnidrop import OmniDrop, complete
from omnidrop.pruning.parts.rank_stability import RankMovement, window
from omnidrop.testing.simulate import View, clip_of, entry_view


def by_hand(layers: list[list[float]], size: int) -> list[float | None]:
    """Variance of every token's rank over a window, mean over tokens, over the first one."""
    ranks = []
    for scores in layers:
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        ranks.append([order.index(i) for i in range(len(scores))])
    found: list[float | None] = []
    first = None
    for end in range(1, len(layers) + 1):
        if end < size:
            found.append(None)
            continue
        last = ranks[end - size : end]
        tokens = range(len(ranks[0]))
        variance = sum(pvariance([row[i] for row in last]) for i in tokens) / len(tokens)
        first = variance if first is None else first
        found.append(variance / first if first else 0.0)
    return found


@pytest.mark.parametrize("size", [2, 3, 8])
def test_the_signal(size):
    draw = torch.Generator().manual_seed(size)
    layers = torch.rand(12, 30, generator=draw)
    signal = RankMovement(size)
    for scores, want in zip(layers, by_hand(layers.tolist(), size), strict=True):
        got = signal.add(scores)
        assert got == (None if want is None else pytest.approx(want))


def test_ranks_that_never_move_have_settled():
    signal = RankMovement(2)
    assert [signal.add(torch.arange(5.0)) for _ in range(3)] == [None, 0.0, 0.0]


@pytest.mark.parametrize(("layers", "size"), [(4, 2), (16, 5), (24, 7), (28, 8), (48, 8)])
def test_the_window_fits_the_depth(layers, size):
    assert window(layers) == size


def run(method, total, layers, settle):
    """Run with attention drawn anew in every layer until `settle`, the same from then on.

    Returns the plan, the counts entering each layer, and the scores shown after each.
    """
    tokens = clip_of(total)
    plan = method.plan(tokens, layers)
    view = entry_view(tokens, state=method.start(plan))
    alive = method.enter(view, plan).keep
    draw = torch.Generator().manual_seed(1)
    lasting = torch.rand(total, generator=draw) / total
    counts, shown = [], []
    for layer in range(layers):
        counts.append(len(alive))
        if layer + 1 == layers:
            return plan, counts, shown
        fresh = torch.rand(total, generator=draw) / total
        scores = (lasting if layer >= settle else fresh)[alive]
        shown.append(scores.tolist())
        seen = View(layer, layers, tokens.select(alive), view.generator, scores, view.state)
        chosen = method.keep(seen, plan.counts[layer + 1])
        assert bool((chosen.diff() > 0).all())
        alive = alive[chosen]
    raise AssertionError


@pytest.mark.parametrize("shape", ["sigmoid", "step", "exponential"])
@pytest.mark.parametrize("settle", [0, 2, 4, 99])
@pytest.mark.parametrize("budget", [0.05, 0.2, 0.5, 0.9])
def test_the_budget_is_met_wherever_it_turns(shape, settle, budget):
    method = OmniDrop(budget=budget, schedule=shape, turning="asl")
    plan, counts, _ = run(method, 400, 28, settle)
    assert plan.adaptive
    assert sum(counts) == sum(plan.counts) == round(budget * 400 * 28)
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == plan.counts[0]


@pytest.mark.parametrize("settle", [0, 3, 5])
def test_it_turns_where_the_ranks_stop_moving(settle):
    method = OmniDrop(budget=0.3, turning="asl", schedule="step")
    _, counts, scores = run(method, 400, 28, settle)
    first = next(i for i in range(28) if counts[i] < counts[0])
    moved = by_hand(scores[:first], window(28))
    assert all(m is None or m >= 0.3 for m in moved[:-1])
    assert moved[-1] is not None
    assert moved[-1] < 0.3


def test_one_drop_and_then_the_same_number():
    _, counts, _ = run(OmniDrop(budget=0.3, turning="asl", schedule="step"), 400, 28, 2)
    after = [n for n in counts if n < counts[0]]
    assert len(after) > 10
    assert max(after) - min(after) <= 1


def test_a_view_that_never_settles_turns_where_the_budget_makes_it():
    _, counts, _ = run(OmniDrop(budget=0.3, turning="asl", schedule="step"), 400, 28, 99)
    first = next(i for i in range(28) if counts[i] < counts[0])
    assert counts[first] < counts[0]
    assert sum(counts[:first]) + counts[0] + 28 - first - 1 > sum(counts)


def test_a_looser_threshold_turns_earlier():
    late, early = (
        run(OmniDrop(budget=0.3, turning="asl", schedule="step", settled=s), 400, 28, 4)[1]
        for s in (0.1, 0.95)
    )
    assert early.count(early[0]) < late.count(late[0])


@pytest.mark.parametrize("shape", ["sigmoid", "step", "exponential"])
@pytest.mark.parametrize("spend", [0, 1, 7, 350, 900, 1600])
def test_complete_spends_exactly(shape, spend):
    counts = complete(200, 8, spend, 28, shape=shape)
    assert len(counts) == 8
    assert sum(counts) == spend
    assert list(counts) == sorted(counts, reverse=True)
    assert complete(0, 3, 5, 28, shape=shape) == (0, 0, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"turning": "auto"},
        {"turning": "asl", "t_mid": 0.4},
        {"turning": "asl", "p_final": 0.4},
        {"settled": -1},
    ],
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        OmniDrop(budget=0.3, **wrong)
