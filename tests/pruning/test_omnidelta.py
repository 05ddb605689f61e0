"""OmniDelta's split around any method, against plain loops of what is published and chosen."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import plain
import pytest
import torch
from audio_selectors import selector_folder
from hypothesis import given
from hypothesis import strategies as st

from omnidrop.errors import UsageError
from omnidrop.evaluation.calibrate.grid import Grid, ranges_of
from omnidrop.evaluation.runner import cells as eval_cells
from omnidrop.pruning.method import Need, Part
from omnidrop.pruning.methods.fastv import FastV
from omnidrop.pruning.methods.omnidelta import AUDIO_SKILLS, VIDEO_SKILLS, OmniDelta, split
from omnidrop.pruning.methods.omnizip import OmniZip
from omnidrop.pruning.methods.uniform import Uniform
from omnidrop.pruning.presets import Preset
from omnidrop.pruning.registry import get_method, methods
from omnidrop.testing.methods import check_method
from omnidrop.testing.simulate import clip, clip_of, entry_view, prefill
from omnidrop.tokens import Kind

LONG = clip(chunks=12, grids=2, height=5, width=7, audio=25)


def seen(method, tokens, seed=0, **changes):
    """What a method sees at entry, and its plan for 12 layers."""
    plan = method.plan(tokens, 12)
    view = entry_view(tokens, seed, state=method.start(plan), phrases=method.phrases)
    return replace(view, **changes), plan


def asking(view, skill, strength=1.0):
    """The view with a question that says what one of the phrases says."""
    return replace(view, question_embeds=strength * view.phrase_embeds[skill])


def slow_demand(view, heat=0.1):
    """The difference of the softmax of both demands, the mean of the highest cosine per token."""
    phrases = [p.double().tolist() for p in view.phrase_embeds]
    pools = phrases[: len(AUDIO_SKILLS)], phrases[len(AUDIO_SKILLS) :]
    asked = view.question_embeds.double().tolist()
    a, v = (
        math.exp(
            sum(max(plain.cosine(word, other) for p in pool for other in p) for word in asked)
            / len(asked)
            / heat
        )
        for pool in pools
    )
    return (a - v) / (a + v)


def test_the_demand_is_that_of_the_nearest_words():
    method = get_method("uniform@omnidelta", budget=0.3)
    for seed in range(4):
        view, _ = seen(method, LONG, seed)
        assert method.demand(view) == pytest.approx(slow_demand(view), abs=1e-5)


def test_words_of_both_pools_count_for_neither():
    method = get_method("uniform@omnidelta", budget=0.3)
    view, _ = seen(method, LONG)
    first, last = view.phrase_embeds[0], view.phrase_embeds[-1]
    both = replace(view, phrase_embeds=(*view.phrase_embeds[:-1], torch.cat((first, last))))
    assert method.demand(asking(view, 0)) > 0.2
    assert method.demand(asking(both, 0)) == pytest.approx(0, abs=1e-6)


def test_phrases_are_all_different_and_both_pools_have_some():
    assert len(set(AUDIO_SKILLS + VIDEO_SKILLS)) == len(AUDIO_SKILLS) + len(VIDEO_SKILLS)
    assert min(len(AUDIO_SKILLS), len(VIDEO_SKILLS)) >= 5


def test_a_question_about_sound_keeps_more_audio():
    method = get_method("uniform@omnidelta", budget=0.3)
    view, plan = seen(method, LONG)
    heard = {}
    for what, skill in (("audio", 0), ("video", len(AUDIO_SKILLS))):
        one = asking(replace(view, state=method.start(plan)), skill)
        kept = method.enter(one, plan).keep
        assert len(kept) == plan.counts[0]
        heard[what] = int(LONG.audio[kept].sum())
    even = 0.3 * int(LONG.audio.sum())
    assert heard["video"] < even < heard["audio"]
    assert heard["audio"] == split(plan.counts[0], 300, 840, 0.5 * method.demand(asking(view, 0)))


def slow_cells(view, count, which, spread=0.5):
    """How many of `count` tokens of one modality each of its parts keeps."""
    tokens, embeds = view.tokens, view.embeds.double().tolist()
    if which == Kind.AUDIO:
        by_chunk = {}
        for i in plain.of_kind(tokens, Kind.AUDIO):
            by_chunk.setdefault(int(tokens.chunk[i]), []).append(i)
        parts = list(by_chunk.values())
        change = [
            sum(1 - plain.cosine(embeds[a], embeds[b]) for a, b in zip(p[1:], p[:-1], strict=True))
            / max(len(p) - 1, 1)
            for p in parts
        ]
    else:
        parts = plain.frames_of(tokens)
        change = [
            sum(1 - plain.cosine(embeds[a], embeds[b]) for a, b in zip(p, q, strict=True)) / len(p)
            for q, p in itertools.pairwise(parts)
        ]
        change = [max(change), *change]
    low, high = min(change), max(change)
    weights = [1 + spread * (2 * (c - low) / (high - low) - 1) for c in change]
    size = sum(map(len, parts))
    shares = [min(w * count / size, 1) for w in weights]
    return parts, plain.whole_numbers(shares, [len(p) for p in parts], count)


@pytest.mark.parametrize("budget", [0.1, 0.4, 0.75])
def test_what_changes_more_keeps_more_and_the_method_chooses_there(budget):
    method = get_method("uniform@omnidelta", budget=budget)
    for seed in range(2):
        view, plan = seen(method, LONG, seed)
        kept = method.enter(view, plan).keep
        heard = split(plan.counts[0], 300, 840, 0.5 * slow_demand(view))
        expected = []
        for which, count in ((Kind.AUDIO, heard), (Kind.VIDEO, plan.counts[0] - heard)):
            for part, quota in zip(*slow_cells(view, count, which), strict=True):
                size = len(part)
                expected += [
                    part[n] for n in range(size) if (n + 1) * quota // size > n * quota // size
                ]
        assert kept.tolist() == sorted(expected)


def test_chunks_can_be_the_parts_and_so_can_modalities():
    for name in ("chunk", "modality"):
        method = get_method("uniform@omnidelta", budget=0.4, cells=name, shift=0)
        view, plan = seen(method, LONG)
        kept = method.enter(view, plan).keep
        video = kept[LONG.video[kept]]
        frame = 24 * [0]
        for i in video.tolist():
            frame[int(LONG.grid[i, 0])] += 1
        pairs = [abs(a - b) for a, b in zip(frame[::2], frame[1::2], strict=True)]
        assert max(pairs) <= 1, "inside a chunk nothing is shifted"
        assert (max(frame) - min(frame) > 1) == (name == "chunk")


def test_without_shift_and_spread_the_method_divides_as_it_does_by_modality():
    method = get_method("uniform@omnidelta", budget=0.3, shift=0, spread=0, cells="modality")
    view, plan = seen(method, LONG)
    kept = method.enter(view, plan).keep
    for mask, share in ((LONG.audio, 90), (LONG.video, 252)):
        some = LONG.select(mask)
        alone = Uniform(budget=0.3)
        found = alone.enter(entry_view(some), alone.plan(some, 12)).keep
        index = mask.nonzero().flatten()
        assert len(found) == share
        assert torch.equal(index[found], kept[mask[kept]])


@given(st.integers(0, 40), st.integers(0, 40), st.floats(-1, 1))
def test_neither_modality_ever_grows_again(audio, video, lean):
    before = (0, 0)
    for count in range(audio + video + 1):
        heard = split(count, audio, video, lean)
        now = (heard, count - heard)
        assert 0 <= now[0] <= audio
        assert 0 <= now[1] <= video
        assert all(b - a in (0, 1) for a, b in zip(before, now, strict=True))
        assert count < 2 or (now[0] > 0) == (audio > 0)
        assert count < 2 or (now[1] > 0) == (video > 0)
        before = now


def test_inside_the_layers_both_modalities_follow_the_split():
    method = get_method("fastv@omnidelta", budget=0.4)
    tokens = clip_of(1200)
    plan = method.plan(tokens, 28)
    assert plan == FastV(budget=0.4).plan(tokens, 28)
    for skill, more in ((1, True), (len(AUDIO_SKILLS) + 1, False)):
        run = prefill(method, tokens, 28, see=lambda view, skill=skill: asking(view, skill))
        assert tuple(map(len, run.survivors)) == plan.counts
        audio = int(tokens.audio[run.survivors[-1]].sum())
        assert (audio / plan.counts[-1] > int(tokens.audio.sum()) / 1200) is more


def test_inside_the_layers_the_method_chooses_the_best_of_each_modality():
    method = get_method("fastv@omnidelta", budget=0.4)
    scores = torch.rand(len(LONG), generator=torch.Generator().manual_seed(9))

    plan = method.plan(LONG, 28)
    turn = next(i for i, count in enumerate(plan.counts) if count < plan.total)

    class Fixed:
        layer, layers, generator, tokens = turn - 1, 28, None, LONG

        def attention(self, rows):
            return scores

    view, _ = seen(method, LONG)
    view = replace(view, state=method.start(plan))
    method.enter(view, plan)
    Fixed.state = view.state
    kept = method.keep(Fixed(), plan.counts[turn]).keep
    heard = split(plan.counts[turn], 300, 840, 0.5 * slow_demand(view))
    expected = []
    for which, count in ((Kind.AUDIO, heard), (Kind.VIDEO, plan.counts[turn] - heard)):
        own = plain.of_kind(LONG, which)
        expected += [own[n] for n in plain.best([float(scores[i]) for i in own], count)]
    assert kept.tolist() == sorted(expected)


def test_merges_come_through():
    method = get_method("visionzip@omnidelta", budget=0.4, contextual=0.3)
    view, plan = seen(method, LONG)
    entry = method.enter(view, plan)
    assert entry.mix is not None
    named = torch.unique(entry.mix.kept)
    for place in named[:20].tolist():
        source = entry.mix.source[entry.mix.kept == place]
        assert int(entry.keep[place]) in source.tolist()
        assert len({int(LONG.kind[i]) for i in source}) == 1, "audio and video are never mixed"
        mean = view.embeds[source].mean(0)
        torch.testing.assert_close(entry.take(view.embeds)[place], mean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cells", ["frame", "modality"])
def test_every_method_can_be_split_and_keeps_its_budget(cells):
    tokens = clip(chunks=6, grids=2, height=4, width=5, audio=25)
    trained = {"omnisift": {"selector": selector_folder()}}
    for name in set(methods()) - {"none", "echoingpixels"}:
        whole, split_up = (
            get_method(spelt, budget=0.5, **trained.get(name, {}))
            for spelt in (name, f"{name}@omnidelta")
        )
        run = prefill(replace(split_up, cells=cells), tokens, 28, seed=1)
        assert run.plan == whole.plan(tokens, 28), name
        assert run.realised == pytest.approx(0.5, abs=0.01), name
        if not run.plan.adaptive:
            assert tuple(map(len, run.survivors)) == run.plan.counts, name


def test_an_adaptive_method_stays_within_the_budget():
    for name, more in (
        ("omnidrop-auto@omnidelta", {"keep_mass": 0.5}),
        ("sparsevlm@omnidelta", {}),
    ):
        method = get_method(name, budget=0.4, **more)
        run = prefill(method, LONG, 28, seed=2)
        assert run.plan.adaptive
        assert run.realised <= 0.41
    assert run.realised == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("name", ["dycoke@omnidelta", "uniform+omnidrop@omnidelta"])
def test_a_split_method_is_a_method(name):
    check_method(lambda **settings: get_method(name, **settings), tunable=False)


def test_names_and_settings_go_through_everything():
    for name, fields in (
        ("uniform@omnidelta", {"shift": 0.2}),
        (
            "divprune+omnidrop@omnidelta",
            {"t_mid": 0.4, "entry.scope": "chunk", "cells": "modality"},
        ),
        ("random+random@omnidrop@omnidelta", {"schedule": "step", "spread": 0}),
        ("seats@omnidelta", {"method.after": [0.4, 0.6]}),
    ):
        made = get_method(name, budget=0.3, **fields)
        assert made.name == name
        assert made.label == f"{name} 0.3"
        settings = json.loads(json.dumps(made.settings()))
        assert get_method(name, **settings) == made
        assert Preset(name, (0.3, 0.5), fields).at() == made
        assert replace(made, budget=0.5) == Preset(name, (0.3, 0.5), fields).at(0.5)
        assert len({made, get_method(name, **settings)}) == 1
    assert OmniDelta(0.3, Uniform()) == get_method("uniform@omnidelta", budget=0.3)
    assert [c.label for c in eval_cells(["uniform@omnidelta"], [0.3])] == [
        "unpruned",
        "uniform@omnidelta",
    ]


def test_it_can_be_calibrated():
    ranges = ranges_of("omnidrop@omnidelta")
    assert {"shift", "cells", "method.t_mid"} <= set(ranges)
    drawn = Grid("omnidrop@omnidelta", ranges, (0.3,), 12).draw(4, seed=1)
    assert len(drawn) == 4


def test_it_is_what_the_method_is_and_asks_for_the_question():
    method = get_method("visionzip+seats@omnidelta", budget=0.4)
    assert method.wants == {Need.QUESTION, Need.VIDEO_ATTENTION}
    assert method.phrases == AUDIO_SKILLS + VIDEO_SKILLS
    assert (method.cache, method.question_free, method.draws) == ("cut", False, False)
    assert get_method("random@omnidelta").draws
    assert get_method("uniform+omnidrop@omnidelta", cache="cut").cache == "cut"
    assert method.parts() == frozenset()
    assert Part.ENTRY in get_method("visionzip").parts()


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("omnidelta", {}, "behind that method: uniform@omnidelta"),
        ("omnidelta+omnidrop", {}, "behind that method: uniform@omnidelta"),
        ("@omnidelta", {}, "names no method"),
        ("uniform@omnidelta@omnidelta", {}, "split already"),
        ("unifrm@omnidelta", {}, "Did you mean uniform"),
        ("uniform@omnidelta", {"shift": 2}, "shift cannot be 2"),
        ("uniform@omnidelta", {"cells": "token"}, "Unknown cells 'token'"),
        ("uniform@omnidelta", {"shfit": 0.1}, "no setting 'shfit'.*Those of omnidelta:.*shift"),
        ("uniform@omnidelta", {"method.budget": 0.5}, "has one budget"),
        ("dycoke@omnidelta", {"solve": False}, "fix how many tokens"),
        ("seats@omnidelta", {"ratios": (0.1, 0.4)}, "fix how many tokens"),
        ("uniform+omnidrop@omnidelt", {}, "Did you mean omnidelta"),
    ],
)
def test_what_does_not_fit_is_explained(name, fields, message):
    with pytest.raises(UsageError, match=message):
        get_method(name, **{"budget": 0.3, **fields})
    with pytest.raises(UsageError, match="fix how many"):
        OmniDelta(0.3, OmniZip(rho_a=0.3, rho_v=0.6, solve=False))
