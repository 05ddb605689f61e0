"""OmniDrop-auto: depths, the two selections, and a budget that the question may lower."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from omnidrop.errors import UsageError
from omnidrop.pruning.method import Plan
from omnidrop.pruning.methods.auto import OmniDropAuto, fewest, times_of, windows_of
from omnidrop.testing.simulate import View, clip, entry_view, prefill


@pytest.mark.parametrize(
    ("layers", "fields", "wanted"),
    [
        (16, {}, (3, 9)),
        (28, {}, (5, 23)),
        (48, {}, (9, 39)),
        (32, {}, (6, 26)),
        (16, {"free": 13}, (3, 13)),
        (16, {"free": 0.5, "fuse": 0.25}, (4, 8)),
        (4, {"free": 9, "fuse": 9}, (4, 4)),
        (16, {"free": 2}, (2, 2)),
    ],
)
def test_depths(layers, fields, wanted):
    assert OmniDropAuto(**fields).depths(layers) == wanted


@pytest.mark.parametrize("budget", [0.05, 0.1, 0.2, 0.3])
def test_two_shares_then_nothing(budget):
    tokens = clip(chunks=10)
    plan = OmniDropAuto(budget=budget).plan(tokens, 16)
    total = len(tokens)
    assert plan.counts[9:] == (0,) * 7
    assert plan.counts[3] < plan.counts[0]
    assert sum(plan.counts) == round(budget * 16 * total)
    # Entered and went on in the proportion asked for, whole tokens aside.
    assert plan.counts[0] == pytest.approx(min(2.5 * plan.counts[5], total), abs=3)


def test_a_high_budget_moves_the_end_up():
    tokens = clip(chunks=10)
    plan = OmniDropAuto(budget=0.8).plan(tokens, 16)
    assert plan.settings["free"] == 13
    assert plan.counts[12] > 0
    assert OmniDropAuto().plan(tokens, 16).counts == (len(tokens),) * 16


def greedy(points, weights, count, times):
    """Read the definition slowly: farthest from the chosen, distance times the taken's weight."""
    unit = torch.nn.functional.normalize(points, dim=1)
    apart = [
        [
            float(((1 - unit[i] @ unit[j]).clamp_min(0) + abs(times[i] - times[j])) * weights[j])
            for j in range(len(unit))
        ]
        for i in range(len(unit))
    ]
    others = range(len(unit))
    nearest = [min(apart[i][j] for i in others if i != j) for j in others]
    chosen = [max(others, key=lambda j: nearest[j])]
    while len(chosen) < count:
        left = [j for j in others if j not in chosen]
        chosen.append(max(left, key=lambda j: min(apart[i][j] for i in chosen)))
    return sorted(chosen)


def test_second_selection_against_a_slow_reading():
    tokens = clip(chunks=1, grids=0, audio=12)
    draw = torch.Generator().manual_seed(5)
    states, scores = torch.randn(12, 6, generator=draw), torch.rand(12, generator=draw)

    class Seen(View):
        def hidden(self):
            return states

    view = Seen(2, 16, tokens, draw, scores)
    twelfths = [i / 12 for i in range(12)]
    guided = OmniDropAuto(budget=0.3, power=0.5)
    weights = (scores / scores.mean()) ** 0.5
    assert guided.keep(view, 5).tolist() == greedy(states, weights, 5, [0.1 * t for t in twelfths])
    for time in (0.0, 0.1, 3.0):
        blind = OmniDropAuto(budget=0.3, time=time).keep(view, 5).tolist()
        assert blind == greedy(states, torch.ones(12), 5, [time * t for t in twelfths])


def test_what_returns_at_another_time_is_kept_again():
    """One picture, two that are nearly the same, and the first one again."""
    tokens = clip(chunks=4, grids=1, height=1, width=1, audio=0)
    first, second, tint = torch.eye(3)
    embeds = torch.stack((first, second, second + 0.3 * tint, first))
    view = replace(entry_view(tokens), embeds=embeds)
    kept = [
        OmniDropAuto(time=time).enter(view, Plan(4, (3,) * 16)).keep.tolist() for time in (0.0, 0.1)
    ]
    assert len({0, 3} & set(kept[0])) == 1
    assert {0, 3} < set(kept[1])


def test_times_in_chunks():
    tokens = clip(chunks=2, grids=2, height=1, width=2, audio=4)
    times = times_of(tokens)
    assert times[tokens.audio].tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]
    assert times[tokens.video].tolist() == [0, 0, 0.5, 0.5, 1, 1, 1.5, 1.5]
    later = tokens.select(tokens.chunk == 1)
    assert torch.equal(times_of(later), times[tokens.chunk == 1])


@pytest.mark.parametrize(
    ("kept", "wanted"), [(1, 1), (127, 1), (128, 2), (200, 3), (10_000, 6), (1_000_000, 6)]
)
def test_windows_keep_sixty_four_tokens_or_have_one_chunk(kept, wanted):
    tokens = clip(chunks=6, grids=0, audio=200)
    windows = windows_of(tokens, kept)
    assert len(windows.sizes) == wanted
    assert int(windows.sizes.sum()) == 1200
    assert windows.order.tolist() == list(range(1200)), "neighbouring chunks"
    long = windows_of(clip(chunks=60, grids=0, audio=200), 10)
    assert len(long.sizes) == 3, "4000 tokens in each"
    both = windows_of(clip(chunks=6, grids=2, height=2, width=5, audio=20), 60)
    assert both.labels.tolist() == [0, 1], "one for video, one for audio"


def test_each_modality_keeps_its_share():
    tokens = clip(chunks=6, grids=2, height=2, width=5, audio=20)
    run = prefill(OmniDropAuto(budget=0.2), tokens, 16)
    first = tokens.select(run.survivors[0])
    for part in (first.audio, first.video):
        assert int(part.sum()) / 120 == pytest.approx(len(first) / len(tokens), abs=0.01)


def test_the_question_is_asked_only_where_it_has_a_say():
    assert OmniDropAuto().question_free
    assert not OmniDropAuto(power=0.5).question_free
    assert not OmniDropAuto(keep_mass=0.85).question_free


def test_fewest_tokens_for_a_mass():
    scores = torch.tensor([0.1, 0.5, 0.05, 0.3, 0.05])
    assert [fewest(scores, mass) for mass in (0.4, 0.49, 0.51, 0.79, 0.99)] == [1, 1, 2, 2, 5]


def test_keep_mass_lowers_the_cost_of_an_easy_question():
    tokens = clip(chunks=8)
    plain = prefill(OmniDropAuto(budget=0.3), tokens, 16)
    less = prefill(OmniDropAuto(budget=0.3, keep_mass=0.3), tokens, 16)
    most = prefill(OmniDropAuto(budget=0.3, keep_mass=0.999), tokens, 16)
    count = [[len(s) for s in run.survivors] for run in (plain, less, most)]
    assert count[0][:3] == count[1][:3] == count[2][:3]
    assert count[1][3] < count[0][3]
    assert count[2] == count[0]
    assert count[1][8] == count[1][3]
    assert count[1][9] == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"keep_mass": 1},
        {"keep_mass": 0},
        {"lead": 0.5},
        {"free": 0},
        {"fuse": 1.5},
        {"power": -1},
        {"time": -1},
    ],
)
def test_settings_that_cannot_be_meant(fields):
    with pytest.raises(UsageError):
        OmniDropAuto(**fields)
