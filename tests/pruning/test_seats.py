"""SEATS against a slow reading of the paper in plain loops, and against its published numbers."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from omnidrop.errors import BudgetError, UsageError
from omnidrop.pruning import registry
from omnidrop.pruning.methods.seats import Seats, level, total_drop
from omnidrop.testing.simulate import View, clip, clip_of, entry_view, prefill
from omnidrop.tokens import Kind

# The slow reading ---------------------------------------------------------------------------------


def farthest(points, attention, count):
    """Greedy max-min selection on (1 − cosine) · attention, one token at a time."""

    def apart(i, j):
        a, b = points[i].double(), points[j].double()
        cosine = float(a @ b / (a.norm() * b.norm()))
        return max(1 - cosine, 0) * float(attention[j])

    others = range(len(points))
    lonely = [min((apart(i, j) for i in others if i != j), default=math.inf) for j in others]
    chosen = [lonely.index(max(lonely))]
    while len(chosen) < count:
        left = [j for j in others if j not in chosen]
        chosen.append(max(left, key=lambda j: (min(apart(i, j) for i in chosen), -j)))
    return chosen


def entry_by_loops(view, video_ratio, audio_ratio):
    """Windows of two grids of video and of 2 s of audio; round(1.4 · R · length), at least one."""
    windows = {}
    seen = heard = 0
    attention = []
    for i, kind in enumerate(view.tokens.kind.tolist()):
        if kind == Kind.VIDEO:
            key = ("video", int(view.tokens.grid[i, 0]) // 2)
            attention.append(view.video_attention[seen])
            seen += 1
        else:
            key = ("audio", int(view.tokens.chunk[i]))
            attention.append(view.audio_attention[heard])
            heard += 1
        windows.setdefault(key, []).append(i)
    kept = []
    for (kind, _), window in windows.items():
        ratio = video_ratio if kind == "video" else audio_ratio
        count = max(1, round(1.4 * ratio * len(window)))
        weights = [attention[i] for i in window]
        kept += [window[i] for i in farthest(view.embeds[window], weights, count)]
    return sorted(kept)


def softmax(values, temperature):
    raw = [math.exp(v / temperature) for v in values]
    return [r / sum(raw) for r in raw]


def keep_by_loops(tokens, scores, count, temperature=0.1):
    """Budget per window, split per modality, top-k: both modalities and several windows."""
    chunks = sorted(set(tokens.chunk.tolist()))
    cells = {
        (c, kind): [
            i
            for i in range(len(tokens))
            if int(tokens.chunk[i]) == c and int(tokens.kind[i]) == kind
        ]
        for c in chunks
        for kind in (Kind.VIDEO, Kind.AUDIO)
    }
    weight = {}
    for kind in (Kind.VIDEO, Kind.AUDIO):
        means = [
            sum(float(scores[i]) for i in cells[c, kind]) / max(len(cells[c, kind]), 1)
            for c in chunks
        ]
        weight |= {(c, kind): w for c, w in zip(chunks, softmax(means, temperature), strict=True)}
    budget = []
    for c in chunks:
        mean = (weight[c, Kind.VIDEO] + weight[c, Kind.AUDIO]) / 2
        sizes = [len(cells[c, kind]) for kind in (Kind.VIDEO, Kind.AUDIO)]
        budget.append(min(max(round(mean * count), sum(s > 0 for s in sizes)), sum(sizes)))
    most = [len(cells[c, Kind.VIDEO]) + len(cells[c, Kind.AUDIO]) for c in chunks]
    least = [sum(bool(cells[c, k]) for k in (Kind.VIDEO, Kind.AUDIO)) for c in chunks]
    while sum(budget) > count:
        able = [i for i in range(len(budget)) if budget[i] > least[i]]
        budget[max(able, key=lambda i: (budget[i], -i))] -= 1
    while sum(budget) < count:
        able = [i for i in range(len(budget)) if budget[i] < most[i]]
        budget[min(able, key=lambda i: (budget[i], i))] += 1
    kept = []
    videos = int(tokens.video.sum()) * count / len(tokens)
    audios = int(tokens.audio.sum()) * count / len(tokens)
    for c, b in zip(chunks, budget, strict=True):
        seen, heard = cells[c, Kind.VIDEO], cells[c, Kind.AUDIO]
        v, a = weight[c, Kind.VIDEO] * videos, weight[c, Kind.AUDIO] * audios
        n = round(b * v / (v + a))
        n = max(n, bool(seen))
        n = min(n, b - bool(heard))
        n = min(max(n, b - len(heard)), len(seen))
        for cell, many in ((seen, n), (heard, b - n)):
            kept += sorted(cell, key=lambda i: (-float(scores[i]), i))[:many]
    return sorted(kept)


# Against it ---------------------------------------------------------------------------------------

SHAPES = [
    {"chunks": 3, "grids": 2, "height": 3, "width": 4, "audio": 10},
    {"chunks": 4, "grids": 3, "height": 2, "width": 2, "audio": 7},
    {"chunks": 5, "grids": 1, "height": 2, "width": 3, "audio": 4},
    {"chunks": 3, "grids": 0, "audio": 10},
    {"chunks": 3, "audio": 0},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ratios", [(0.3, 0.65), (0.2, 0.55), (0.06, 0.35)])
def test_entry_is_the_papers(shape, ratios):
    tokens = clip(**shape)
    for seed in (0, 1):
        view = entry_view(tokens, seed)
        method = Seats(budget=0.3, ratios=ratios)
        kept = method.enter(view, method.plan(tokens, 28)).keep
        assert kept.tolist() == entry_by_loops(view, *ratios)


def test_entry_is_the_papers_where_the_last_window_is_short():
    tokens = clip_of(150)
    view = entry_view(tokens)
    method = Seats(budget=0.3, ratios=(0.3, 0.65))
    kept = method.enter(view, method.plan(tokens, 28)).keep
    assert kept.tolist() == entry_by_loops(view, 0.3, 0.65)


@pytest.mark.parametrize(("layers", "temperature"), [(28, 0.1), (48, 0.3), (36, 0.1)])
@pytest.mark.parametrize("seed", range(6))
def test_a_step_is_the_papers(seed, layers, temperature):
    draw = torch.Generator().manual_seed(seed)
    whole = clip(chunks=6, grids=2, height=4, width=4, audio=20)
    tokens = whole.select(torch.randperm(len(whole), generator=draw)[:200].sort().values)
    scores = torch.rand(200, generator=draw) ** 4 / 10
    for count in (180, 120, 60, 13):
        view = View(15, layers, tokens, draw, scores)
        assert Seats(budget=0.3).keep(view, count).tolist() == keep_by_loops(
            tokens, scores, count, temperature
        )


@pytest.mark.parametrize("shape", [{"chunks": 1}, {"grids": 0}, {"audio": 0}])
def test_one_window_or_one_modality_is_one_pool(shape):
    tokens = clip(**shape)
    scores = torch.rand(len(tokens), generator=torch.Generator().manual_seed(3))
    kept = Seats(budget=0.3).keep(View(15, 28, tokens, None, scores), 8).tolist()
    videos, audios = int(tokens.video.sum()), int(tokens.audio.sum())
    seen = round(8 * videos / len(tokens))
    best = torch.sort(scores, descending=True).indices.tolist()
    want = [i for i in best if tokens.video[i]][:seen]
    want += [i for i in best if tokens.audio[i]][: 8 - seen]
    assert audios == 0 or videos == 0 or len(kept) == 8
    assert kept == sorted(want)


def test_every_window_keeps_something_of_both():
    tokens = clip(chunks=8)
    scores = torch.zeros(len(tokens))
    scores[tokens.chunk == 3] = 1.0
    for count in (16, 17, 40):
        kept = tokens.select(Seats(budget=0.3).keep(View(15, 28, tokens, None, scores), count))
        cells = {(int(c), int(k)) for c, k in zip(kept.chunk, kept.kind, strict=True)}
        assert len(kept) == count
        assert len(cells) == 16
    few = Seats(budget=0.3).keep(View(15, 28, tokens, None, scores), 5)
    assert len(few) == 5


def test_attention_mass_may_split_a_window():
    tokens = clip(chunks=4)
    scores = torch.where(tokens.audio, 0.004, 0.001)
    view = View(15, 28, tokens, None, scores)
    demand = tokens.select(Seats(budget=0.3).keep(view, 40)).audio.sum()
    mass = tokens.select(Seats(budget=0.3, split="mass").keep(view, 40)).audio.sum()
    assert mass > demand


# Published numbers --------------------------------------------------------------------------------

LONG = clip(chunks=60, grids=2, height=10, width=15, audio=50)  # six tokens in seven are video


def test_keep_ratios_of_the_7b():
    drop = total_drop(1.4, (16, 18, 20), 23, 28)
    parts = [math.exp(i) / sum(math.exp(j) for j in range(3)) for i in range(3)]
    levels = [1 - drop * sum(parts[:i]) for i in range(4)]
    ratios = [b / a for a, b in pairwise(levels)]
    assert ratios == pytest.approx([0.930, 0.795, 0.299], abs=5e-4)


@pytest.mark.parametrize(
    ("name", "ratios"),
    [
        ("seats-35", (0.30, 0.65)),
        ("seats-25", (0.20, 0.55)),
        ("seats-15", (0.10, 0.45)),
        ("seats-10", (0.06, 0.35)),
    ],
)
def test_published_presets(name, ratios):
    preset = registry.presets()[name]
    assert (preset.name, preset.ratios, preset.cache) == ("seats", ratios, "cut")
    plan = preset.plan(LONG, 28)
    want = sum(max(1, round(1.4 * r * n)) for r, n in zip(ratios, (300, 50), strict=True)) * 60
    assert plan.counts[0] == want
    assert plan.settings["keep_ratios"] == pytest.approx([0.930, 0.795, 0.299], abs=2e-3)
    assert plan.realised == pytest.approx(preset.budget, abs=0.01)
    assert "note" not in plan.settings
    assert "taken as given" in preset.plan(clip(), 28).settings["note"]


@pytest.mark.parametrize("budget", [0.35, 0.25, 0.15])
def test_a_budget_gives_the_published_shares_where_they_mean_it(budget):
    """At six video tokens in seven the published pairs have the means that they are named by."""
    named, plan = Seats.presets()[f"seats-{round(100 * budget)}"], Seats(budget=budget)
    settings = plan.plan(LONG, 28).settings
    assert (settings["video_ratio"], settings["audio_ratio"]) == pytest.approx(named.ratios)


@pytest.mark.parametrize(
    ("layers", "after", "late"),
    [(28, (16, 18, 20), 23), (48, (27, 31, 35), 39), (36, (21, 23, 26), 30), (10, (6, 6, 7), 8)],
)
def test_depths(layers, after, late):
    """At 28 and 48 layers as published: all is gone before layer 24 and layer 40."""
    plan = Seats(budget=0.3).plan(LONG, layers)
    counts = plan.counts
    assert (plan.settings["after"], plan.settings["late"]) == (list(after), late)
    assert [i for i in range(1, layers) if counts[i] < counts[i - 1]] == sorted({*after, late})
    assert counts[late - 1] > 0
    assert set(counts[late:]) == {0}
    assert len(set(counts[: layers // 2])) == 1  # nothing is dropped in the shallow half


def test_depths_can_be_given():
    method = Seats(budget=0.3, after=[4, 0.5], late=1.0)
    counts = method.plan(LONG, 16).counts
    assert [i for i in range(1, 16) if counts[i] < counts[i - 1]] == [4, 8]
    assert counts[-1] > 0
    assert registry.get_method("seats", **method.settings()) == method


@pytest.mark.parametrize("layers", [4, 16, 28, 36, 48])
@pytest.mark.parametrize("budget", [0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 0.83, 0.95, 1.0])
def test_budgets_are_met(layers, budget):
    for tokens in (LONG, clip(chunks=20, height=4, width=4, audio=50), clip(chunks=60, grids=0)):
        if budget * len(tokens) * layers < len(torch.unique(tokens.chunk)) * 2 * layers:
            continue
        plan = Seats(budget=budget).plan(tokens, layers)
        assert plan.realised == pytest.approx(budget, abs=min(0.01, 0.011 * budget))
    run = prefill(Seats(budget=budget), LONG, 28)
    assert abs(sum(map(len, run.survivors)) / (28 * len(LONG)) - budget) <= 0.01


def test_a_budget_under_one_token_a_window_is_refused():
    tokens = clip(chunks=30, grids=1, height=1, width=1, audio=1)
    with pytest.raises(BudgetError, match="reachable") as caught:
        Seats(budget=0.1).plan(tokens, 28)
    low, high = caught.value.reachable
    assert high == 1.0
    assert low == pytest.approx(45 * 23 / (60 * 28))  # 15 windows of two grids, 30 of sound
    assert Seats(budget=low).plan(tokens, 28).realised == pytest.approx(low)


def test_levels_move_the_fullest_and_the_emptiest():
    assert level([5, 3, 9], [1, 1, 1], [9, 9, 9], 14) == [5, 3, 6]
    assert level([5, 3, 9], [1, 1, 1], [9, 9, 9], 20) == [6, 5, 9]
    assert level([5, 3, 9], [1, 3, 1], [5, 3, 9], 9) == [3, 3, 3]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ratios": (0.3,)}, "two numbers"),
        ({"ratios": 0.3}, "list of numbers"),
        ({"ratios": (0.3, 1.5)}, "cannot be 1.5"),
        ({"after": [0]}, "1 or more"),
        ({"after": "16"}, "list of numbers"),
        ({"late": 1.5}, "0 to 1"),
        ({"late": True}, "whole number"),
        ({"scale": 0.9}, "1 or more"),
        ({"temperature": 0}, "0.0001 or more"),
        ({"split": "half"}, "demand, mass"),
    ],
)
def test_senseless_settings_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        Seats(budget=0.3, **fields)
