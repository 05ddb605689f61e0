"""SparseVLM against plain loops: raters, ranks, the counts that follow from them, recycling."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from omnidrop.errors import BudgetError, UsageError
from omnidrop.pruning.method import Entry, Plan
from omnidrop.pruning.methods.sparsevlm import SparseVLM, choose_raters, density_clusters, recycle
from omnidrop.testing.simulate import View, clip, clip_of, entry_view, prefill


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(4))
def test_raters_are_the_words_over_the_mean(seed):
    tokens, words = draw(50, 6, seed=seed), draw(7, 6, seed=seed + 10)
    share = [0.0] * 7
    for token in tokens.tolist():
        dots = [sum(a * b for a, b in zip(token, word, strict=True)) for word in words.tolist()]
        whole = sum(math.exp(dot) for dot in dots)
        for i, dot in enumerate(dots):
            share[i] += math.exp(dot) / whole / 50
    want = [i for i in range(7) if share[i] > sum(share) / 7]
    assert choose_raters(tokens, words).tolist() == want
    assert 0 < len(want) < 7


def test_without_a_difference_all_words_rate():
    assert choose_raters(draw(9, 4), torch.ones(3, 4)).tolist() == [0, 1, 2]
    assert choose_raters(draw(9, 4), draw(1, 4)).tolist() == [0]


def clusters_by_hand(points: list[list[float]], count: int) -> tuple[list[int], list[list[float]]]:
    """Density peaks, written as loops."""
    n, width = len(points), len(points[0])
    apart = [[math.dist(a, b) / math.sqrt(width) for b in points] for a in points]
    k = min(max(count, 2), n)
    density = [math.exp(-sum(d * d for d in sorted(row)[:k]) / k) for row in apart]
    longest = max(max(row) for row in apart)
    score = []
    for i in range(n):
        denser = [apart[i][j] for j in range(n) if density[j] > density[i]]
        score.append(density[i] * min(denser, default=longest))
    centres = sorted(range(n), key=lambda i: -score[i])[:count]
    groups: list[list[int]] = [[] for _ in centres]
    for i in range(n):
        best = min(range(count), key=lambda c: apart[centres[c]][i])
        groups[centres.index(i) if i in centres else best].append(i)
    means = [
        [sum(points[i][d] for i in group) / len(group) for d in range(width)] for group in groups
    ]
    return centres, means


def clusters(points, count):
    """Return the centres of density clusters, and the clusters' means."""
    centres, member = density_clusters(points, count)
    return centres, torch.stack([points[member == i].mean(0) for i in range(count)])


@pytest.mark.parametrize(("n", "count"), [(2, 1), (12, 3), (40, 5), (40, 1), (6, 6)])
def test_clusters_by_density_peaks(n, count):
    points = draw(n, 5, seed=n + count)
    centres, means = clusters(points, count)
    want, want_means = clusters_by_hand(points.tolist(), count)
    assert centres.tolist() == want
    torch.testing.assert_close(means, torch.tensor(want_means), rtol=1e-4, atol=1e-5)


def test_equal_points_are_clustered_the_same_way_each_time():
    centres, means = clusters(torch.ones(8, 3), 2)
    assert len(set(centres.tolist())) == 2
    assert torch.equal(means, torch.ones(2, 3))


def test_means_ride_on_their_centres():
    states, scores = draw(60, 4), torch.rand(60, generator=torch.Generator().manual_seed(1))
    entry = recycle(states, scores, 20, 3, 0.3)
    order = sorted(range(60), key=lambda i: -float(scores[i]))
    best, dropped = sorted(order[:17]), order[17:]
    pool = sorted(dropped[: int(0.3 * 43) + 1])
    centres, means = clusters_by_hand(states[pool].tolist(), 3)
    places = [pool[c] for c in centres]
    assert entry.keep.tolist() == sorted(best + places)
    for row, index in enumerate(entry.keep.tolist()):
        own = states[index] if index in best else torch.tensor(means[places.index(index)])
        torch.testing.assert_close(entry.take(states)[row], own, rtol=1e-4, atol=1e-5)


class Rated(View):
    """A view whose rows differ, so that ranks do."""

    def row_attention(self, rows):
        assert rows == "question"
        return self.rated


def run(method, tokens, layers, ranks, seed=0):
    """Run a method under attention of given ranks per layer; return counts entering each layer."""
    plan = method.plan(tokens, layers)
    view = entry_view(tokens, seed, state=method.start(plan))
    alive = method.enter(view, plan).keep
    counts = []
    for layer in range(layers):
        counts.append(len(alive))
        if layer + 1 == layers:
            return plan, counts
        seen = Rated(layer, layers, tokens.select(alive), view.generator, torch.rand(len(alive)))
        seen.state = view.state
        seen.text_embeds = lambda rows: torch.ones(8, 8)  # all eight rate
        rank = ranks.get(layer + 1, 1)
        left, right = torch.rand(8, rank), torch.rand(rank, len(alive))
        seen.rated = left @ right / 100
        chosen = method.keep(seen, plan.counts[layer + 1])
        alive = alive[chosen.keep if isinstance(chosen, Entry) else chosen]
    raise AssertionError


def drops_by_hand(total, layers, budget, turns, ranks):
    """Counts by the rule of the docstring: lambda from a fine grid, later ranks like this one."""
    left = round(budget * total * layers) - total
    n, counts = total, [total]
    for nxt in range(1, layers):
        later = [t for t in turns if t > nxt]
        if nxt in turns and later:
            edges = [nxt, *later, layers]
            best = None
            for step in range(20001):
                rate, m, need, first = step / 20000, n, 0, None
                for begin, end in pairwise(edges):
                    m -= math.floor(rate * max(m - ranks[nxt], 0))
                    first = m if first is None else first
                    need += m * (end - begin)
                if need >= left:
                    best = first
            n = best
        elif nxt >= turns[-1]:
            n = math.ceil(left / (layers - nxt))
        counts.append(n)
        left -= n
    return counts


@pytest.mark.parametrize("budget", [0.2, 0.35, 0.6])
@pytest.mark.parametrize("ranks", [{3: 1, 7: 1, 16: 1}, {3: 8, 7: 2, 16: 5}])
def test_counts_follow_the_ranks(budget, ranks):
    tokens = clip_of(60)
    plan, counts = run(SparseVLM(budget=budget), tokens, 32, ranks)
    assert counts == drops_by_hand(60, 32, budget, [3, 7, 16], ranks)
    assert sum(counts) == sum(plan.counts) == round(budget * 60 * 32)


def test_a_high_rank_keeps_more_early():
    tokens = clip_of(60)
    low = run(SparseVLM(budget=0.3), tokens, 32, {3: 1, 7: 1})[1]
    high = run(SparseVLM(budget=0.3), tokens, 32, {3: 8, 7: 8})[1]
    assert low != high
    assert sum(low) == sum(high)


def test_the_public_preset_keeps_so_many_per_rank():
    (preset,) = SparseVLM.presets().values()
    plan, counts = run(preset, clip_of(300), 32, {3: 8, 7: 4, 16: 2})
    assert counts == [300] * 3 + [108] * 4 + [54] * 9 + [27] * 16
    assert "no budget" in plan.settings["note"]


def test_layers_before_the_first_stage_see_everything():
    with pytest.raises(BudgetError) as caught:
        SparseVLM(budget=0.05).plan(clip_of(1000), 32)
    assert caught.value.reachable == (3 / 32, 1.0)


def test_the_mean_is_the_budget():
    tokens = clip()
    result = prefill(SparseVLM(budget=0.4), tokens, 16)
    assert result.realised == pytest.approx(0.4, abs=0.001)
    assert SparseVLM(budget=1.0).plan(tokens, 16).adaptive is False


@pytest.mark.parametrize(("alive", "count", "clusters"), [(1000, 400, 19), (50, 49, 1), (9, 1, 0)])
def test_clusters_take_a_tenth_of_a_third_of_the_dropped(alive, count, clusters):
    assert SparseVLM()._clusters(alive, count) == clusters
    if clusters > 1:
        dropped = alive - count + clusters
        assert clusters == int((int(0.3 * dropped) + 1) / 10) + 1


def test_nothing_dropped_is_nothing_asked():
    method = SparseVLM(budget=0.9)
    plan = Plan(30, (30, 30, 27), adaptive=True)
    view = entry_view(clip_of(30), state=method.start(plan))
    method.enter(view, plan)
    assert len(method.keep(View(0, 16, clip_of(30), view.generator, None, view.state), 30)) == 30


@pytest.mark.parametrize(
    "wrong", [{"stages": ()}, {"recycle": 2}, {"cluster": 0}, {"scale": -1}, {"scale": "much"}]
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        SparseVLM(**wrong)
