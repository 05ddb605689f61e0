"""OmniPack against plain loops written from its paper and public code."""

from __future__ import annotations

import math
from dataclasses import replace

import plain
import pytest
import torch

from omnidrop.errors import UsageError
from omnidrop.pruning.methods import omnipack
from omnidrop.pruning.methods.omnipack import OmniPack
from omnidrop.pruning.registry import get_preset
from omnidrop.testing.simulate import View, clip, clip_of, entry_view
from omnidrop.tokens import Kind
from tests.some import every

#: (audio, video) shares that enter: the four published pairs between two ends.
PATH = [(0.0, 0.0), (0.35, 0.06), (0.45, 0.10), (0.50, 0.15), (0.55, 0.20), (1.0, 1.0)]
WIDTH = 6


def unit_range(values):
    """Min-max scaling."""
    low, high = min(values), max(values)
    return [(v - low) / (high - low) if high > low else 0.0 for v in values]


def mean_of(rows):
    """Mean of some rows."""
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def heard(view):
    """Audio tokens with their change in time and their places."""
    rows = plain.of_kind(view.tokens, Kind.AUDIO)
    embeds = view.embeds.double().tolist()
    change = []
    for n, i in enumerate(rows):
        beside = [rows[m] for m in (n - 1, n + 1) if 0 <= m < len(rows)]
        change.append(max((1 - plain.cosine(embeds[i], embeds[j]) for j in beside), default=0.0))
    return rows, change, [(n / max(len(rows) - 1, 1),) for n in range(len(rows))]


def seen(view):
    """Video tokens with the larger of their changes in time and in the frame, and their places."""
    embeds, frames = view.embeds.double().tolist(), plain.frames_of(view.tokens)
    spans = [len(frames) - 1]
    spans += [max(int(view.tokens.grid[i, axis]) for f in frames for i in f) for axis in (1, 2)]
    axes = max(sum(span > 0 for span in spans), 1)
    rows, change, places = [], [], []
    for number, frame in enumerate(frames):
        middle = mean_of([embeds[i] for i in frame])
        for n, i in enumerate(frame):
            beside = [frames[m][n] for m in (number - 1, number + 1) if 0 <= m < len(frames)]
            apart = [1 - plain.cosine(embeds[i], embeds[j]) for j in beside]
            rows.append(i)
            change.append(max([*apart, 1 - plain.cosine(embeds[i], middle)]))
            at = (number, int(view.tokens.grid[i, 1]), int(view.tokens.grid[i, 2]))
            places.append(
                [x / max(span, 1) / math.sqrt(axes) for x, span in zip(at, spans, strict=True)]
            )
    return rows, change, places


def peaks(embeds, places):
    """Density times separation, as the paper's appendix writes them."""
    n = len(embeds)
    if n == 1:
        return [1.0]
    apart = [
        [
            1 - plain.cosine(embeds[i], embeds[j]) + 0.2 * math.dist(places[i], places[j])
            for j in range(n)
        ]
        for i in range(n)
    ]
    density = []
    for i in range(n):
        near = sorted(apart[i][j] for j in range(n) if j != i)[:7]
        density.append(math.exp(-sum(d * d for d in near) / len(near)))
    found = []
    for i in range(n):
        denser = [apart[i][j] for j in range(n) if density[j] > density[i]]
        gap = min(denser) if denser else max(apart[i][j] for j in range(n) if j != i)
        found.append(density[i] * gap)
    return found


def slow_modality(view, tokens, attention, cue, share, near, count):
    """What stays of one modality, and what it carries."""
    rows, change, places = tokens
    embeds = view.embeds.double().tolist()
    if count == len(rows):
        return {i: embeds[i] for i in rows}
    change = unit_range(change)
    score = change
    if attention is not None:
        pairs = zip(unit_range(attention.tolist()), change, strict=True)
        score = [a + cue * c for a, c in pairs]
    importance = unit_range(score)
    first = plain.best(importance, max(round(share * count), 1))
    rest = [n for n in range(len(rows)) if n not in first]
    typical = peaks([embeds[rows[n]] for n in rest], [places[n] for n in rest])
    kept = first + [rest[m] for m in plain.best(typical, count - len(first))]
    takes = {n: [(1.0, embeds[rows[n]])] for n in kept}
    for n in range(len(rows)):
        if n in takes:
            continue
        into = max(
            kept,
            key=lambda k: (
                plain.cosine(embeds[rows[n]], embeds[rows[k]])
                - near * math.dist(places[n], places[k])
                + 0.1 * importance[k]
            ),
        )
        takes[into].append(((1 + importance[n]) / 2, embeds[rows[n]]))
    return {rows[n]: weighted(parts) for n, parts in takes.items()}


def weighted(parts):
    """Weighted mean of rows."""
    total = sum(w for w, _ in parts)
    return [sum(w * row[d] for w, row in parts) / total for d in range(len(parts[0][1]))]


@pytest.mark.parametrize("attends", [True, False])
@pytest.mark.parametrize("budget", every(2, [0.06, 0.15, 0.3, 0.6]))
@pytest.mark.parametrize("grids", [1, 3])
def test_the_entry_is_that_of_the_plain_reading(grids, budget, attends):
    for seed in range(2):
        view = entry_view(clip(chunks=4, grids=grids, height=3, width=4, audio=9), seed)
        if not attends:
            view = replace(view, audio_attention=None, video_attention=None)
        method = OmniPack(budget=budget)
        plan = method.plan(view.tokens, 28)
        count = plan.counts[0]
        n_audio = plain.quota_on_path(36, 48 * grids, count, PATH)
        assert plan.settings["audio_kept"] == n_audio
        carried = slow_modality(
            view, heard(view), view.audio_attention, 0.25, 0.35, 0.05, n_audio
        ) | slow_modality(view, seen(view), view.video_attention, 0.35, 0.25, 0.10, count - n_audio)
        entry = method.enter(view, plan)
        assert entry.keep.tolist() == sorted(carried)
        wanted = torch.tensor([carried[i] for i in sorted(carried)])
        torch.testing.assert_close(entry.take(view.embeds), wanted, atol=1e-5, rtol=1e-5)


def test_merging_can_be_left_out():
    view = entry_view(clip(chunks=4, audio=9), 0)
    plan = OmniPack(budget=0.3).plan(view.tokens, 28)
    merged, dropped = (OmniPack(budget=0.3, merge=m).enter(view, plan) for m in (True, False))
    assert torch.equal(merged.keep, dropped.keep)
    assert dropped.mix is None


def test_what_is_important_enters_before_what_is_typical():
    view = entry_view(clip(chunks=4, grids=2, height=4, width=4, audio=20), 1)
    kept = {}
    for share in (0.0, 1.0):
        method = OmniPack(budget=0.2, important=(share, share))
        kept[share] = method.enter(view, method.plan(view.tokens, 28)).keep
    attention = torch.zeros(len(view.tokens))
    attention[view.tokens.audio] = view.audio_attention
    attention[view.tokens.video] = view.video_attention
    assert attention[kept[1.0]].mean() > attention[kept[0.0]].mean() + 0.1


def inside(tokens, seed, rows=5):
    """A view after a layer, with random states of tokens and text."""
    draw = torch.Generator().manual_seed(seed)
    view = View(
        layer=17,
        layers=28,
        tokens=tokens,
        generator=draw,
        scores=torch.zeros(len(tokens)),
    )
    states = torch.randn(len(tokens), WIDTH, generator=draw)
    text = torch.randn(rows, WIDTH, generator=draw)
    view.hidden, view.text_hidden = (lambda: states), (lambda rows: text)
    return view, states, text


def slow_relevance(states, text, own, other):
    """Three parts, each scaled in the modality; then their sum, scaled too."""
    asked = [max(plain.cosine(states[i], q) for q in [mean_of(text), *text]) for i in own]
    across = [0.0] * len(own)
    if other:
        middle = mean_of([states[j] for j in other])
        across = [plain.cosine(states[i], middle) for i in own]
    typical = [
        math.exp(-sum(1 - plain.cosine(states[i], states[j]) for j in own) / len(own)) for i in own
    ]
    parts = [unit_range(part) for part in (asked, across, typical)]
    return unit_range([sum(column) for column in zip(*parts, strict=True)])


def slow_choice(states, own, factor, count):
    """The most relevant, then always the greatest product of factor and distance."""
    chosen = [max(range(len(own)), key=lambda n: factor[n])]
    while len(chosen) < count:
        left = [n for n in range(len(own)) if n not in chosen]
        chosen.append(
            max(
                left,
                key=lambda n: (
                    factor[n]
                    * min(1 - plain.cosine(states[own[n]], states[own[m]]) for m in chosen)
                ),
            )
        )
    return chosen


def slow_inside(tokens, states, text, count):
    """What stays after the layer, and what it carries."""
    kinds = [plain.of_kind(tokens, kind) for kind in (Kind.VIDEO, Kind.AUDIO)]
    total = len(tokens)
    n_video = math.floor(count * len(kinds[0]) / total + 0.5)
    if count > 1:
        n_video = min(max(n_video, int(bool(kinds[0]))), count - int(bool(kinds[1])))
    carried = {}
    for own, other, quota in ((*kinds, n_video), (*kinds[::-1], count - n_video)):
        if not quota:
            continue
        wanted = slow_relevance(states, text, own, other)
        kept = slow_choice(states, own, [1 + w for w in wanted], quota)
        takes = {n: [(1.0, states[own[n]])] for n in kept}
        for n in range(len(own)):
            if n in takes:
                continue
            alike = {k: plain.cosine(states[own[n]], states[own[k]]) for k in kept}
            into = max(kept, key=alike.get)
            weight = ((1 + alike[into]) / 2) ** 2 * (1 + wanted[n]) / 2
            takes[into].append((weight, states[own[n]]))
        carried |= {own[n]: weighted(parts) for n, parts in takes.items()}
    return carried


@pytest.mark.parametrize(
    "tokens",
    [clip(chunks=2, audio=7), clip(chunks=2, grids=0, audio=12), clip(chunks=2, audio=0)],
    ids=["both", "audio", "video"],
)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_choice_inside_is_that_of_the_plain_reading(tokens, share):
    for seed in range(3):
        view, states, text = inside(tokens, seed)
        count = round(share * len(tokens))
        chosen = OmniPack(budget=0.3).keep(view, count)
        carried = slow_inside(tokens, states.double().tolist(), text.double().tolist(), count)
        assert chosen.keep.tolist() == sorted(carried)
        wanted = torch.tensor([carried[i] for i in sorted(carried)])
        torch.testing.assert_close(chosen.take(states), wanted, atol=1e-5, rtol=1e-5)


def test_both_modalities_keep_a_token_where_there_is_room():
    tokens = clip(chunks=1, grids=1, height=5, width=8, audio=1)
    view, _, _ = inside(tokens, 0)
    for count in (2, 3, 20):
        kept = OmniPack(budget=0.3).keep(view, count).keep
        assert int(tokens.audio[kept].sum()) == 1
        assert len(kept) == count
    assert len(OmniPack(budget=0.3).keep(view, 1).keep) == 1
    assert len(OmniPack(budget=0.3).keep(view, 0).keep) == 0


def test_long_clips_are_compared_block_by_block(monkeypatch):
    """Tables too large to hold are computed in parts, with the same result."""
    view = entry_view(clip(chunks=4, audio=20), 0)
    method = OmniPack(budget=0.2)
    plan = method.plan(view.tokens, 28)
    after, states, _ = inside(view.tokens, 0)
    whole = method.enter(view, plan), method.keep(after, 50)
    monkeypatch.setattr(omnipack, "_WHOLE", 0)
    monkeypatch.setattr(omnipack, "_BLOCK", 300)
    parts = method.enter(view, plan), method.keep(after, 50)
    for one, other, rows in zip(whole, parts, (view.embeds, states), strict=True):
        assert torch.equal(one.keep, other.keep)
        torch.testing.assert_close(one.take(rows), other.take(rows), atol=1e-5, rtol=1e-5)


def test_the_caches_are_cut_and_the_host_does_not_wait():
    assert OmniPack().cache == "cut"
    assert not OmniPack.needs_host


@pytest.mark.parametrize(("name", "enters"), [(25, 1750), (20, 1400), (15, 1050), (10, 710)])
def test_the_published_shares_enter_and_half_of_them_stay_from_layer_18_on(name, enters):
    tokens = clip(chunks=20, grids=2, height=10, width=15, audio=50)
    plan = get_preset(f"omnipack-{name}").plan(tokens, 28)
    assert plan.counts == (enters,) * 18 + (enters // 2,) * 10
    assert "note" not in plan.settings


def test_one_budget_gives_shares_between_the_published_pairs():
    tokens = clip(chunks=20, grids=2, height=10, width=15, audio=50)
    plan = OmniPack(budget=0.225 * 23 / 28).plan(tokens, 28)
    assert plan.counts[0] == pytest.approx(0.225 * 7000, abs=2)
    assert plan.settings["audio_kept"] == pytest.approx(525, abs=1)
    assert plan.counts[17] == plan.counts[0] > plan.counts[18] == plan.counts[27]


@pytest.mark.parametrize("budget", [0.85, 0.9, 0.97])
def test_high_budgets_let_everything_in(budget):
    plan = OmniPack(budget=budget).plan(clip_of(1000), 28)
    assert plan.counts[0] == 1000 > plan.counts[18]
    assert plan.realised == pytest.approx(budget, abs=0.001)


def test_the_step_is_at_the_same_share_of_other_depths():
    counts = OmniPack(budget=0.2).plan(clip_of(1000), 36).counts
    assert counts[22] > counts[23] == counts[35]


@pytest.mark.parametrize(
    "fields",
    [
        {"ratios": (0.1,)},
        {"ratios": 0.3},
        {"important": (2, 0)},
        {"at": 2.0},
        {"keeps": -1.0},
        {"neighbours": 0},
        {"rows": "all"},
    ],
)
def test_settings_that_cannot_be_meant(fields):
    with pytest.raises(UsageError):
        OmniPack(**fields)
