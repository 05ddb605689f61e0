"""DyCoke against a plain-loop reading of its temporal merging."""

from __future__ import annotations

import math

import pytest
from plain import cosine, frames_of

from omnidrop.pruning.methods.dycoke import DyCoke
from omnidrop.testing.simulate import clip, entry_view
from omnidrop.tokens import Kind


def slow_groups_of_four(embeds, frames, quotas):
    """Four frames at a time: 1 whole, 2 against 1, 3 against 1, 4 against 3."""
    kept = []
    for f, rows in enumerate(frames):
        offset = f % 4
        if offset == 0:
            kept += rows
            continue
        other = frames[f - 1] if offset == 1 else frames[f - 2] if offset == 2 else frames[f - 1]
        alike = [cosine(embeds[a], embeds[b]) for a, b in zip(rows, other, strict=True)]
        order = sorted(range(len(rows)), key=lambda n: alike[n])
        kept += [rows[n] for n in order[: quotas[f]]]
    return sorted(kept)


def followers_quota(frames, count):
    """Spread `count` over the frames that are not first of four, by cumulative rounding."""
    later = [f for f in range(len(frames)) if f % 4]
    total = sum(len(frames[f]) for f in later)
    quotas, passed, before = {}, 0, 0
    for f in later:
        passed += len(frames[f])
        upto = math.floor(passed * count / total + 0.5)
        quotas[f], before = upto - before, upto
    return quotas


@pytest.mark.parametrize("budget", [0.45, 0.6, 0.85])
@pytest.mark.parametrize("chunks", [2, 4, 7])
def test_survivors_are_those_of_the_plain_reading(chunks, budget):
    for seed in range(3):
        view = entry_view(clip(chunks=chunks, grids=2, height=4, width=5, audio=6), seed)
        tokens = view.tokens
        method = DyCoke(budget=budget)
        plan = method.plan(tokens, 8)
        audio = [i for i in range(len(tokens)) if int(tokens.kind[i]) == Kind.AUDIO]
        frames = frames_of(tokens)
        first = sum(len(rows) for f, rows in enumerate(frames) if f % 4 == 0)
        assert plan.counts[0] >= len(audio) + first
        quotas = followers_quota(frames, plan.counts[0] - len(audio) - first)
        want = sorted(audio + slow_groups_of_four(view.embeds.tolist(), frames, quotas))
        entry = method.enter(view, plan)
        assert entry.keep.tolist() == want
        assert entry.mix is None


def test_the_published_rate():
    """p = 0.7 over whole groups of frames of 10 tokens keeps (1 + 3 · 0.3) / 4 of the video."""
    view = entry_view(clip(chunks=4, grids=2, height=2, width=5, audio=10))
    method = DyCoke.presets()["dycoke-p70"]
    assert (method.prune, method.group) == (0.7, 4)
    plan = method.plan(view.tokens, 8)
    assert plan.counts == (40 + 38,) * 8
    frames = frames_of(view.tokens)
    kept = set(method.enter(view, plan).keep.tolist())
    assert [len(kept & set(rows)) for rows in frames] == [10, 3, 3, 3] * 2
    want = slow_groups_of_four(view.embeds.tolist(), frames, dict.fromkeys(range(8), 3))
    assert kept == {*want, *view.tokens.audio.nonzero().flatten().tolist()}
    assert "0.650, not 0.475" in plan.settings["note"]


def test_audio_stays_until_video_alone_cannot_pay():
    view = entry_view(clip(chunks=10, grids=2, height=4, width=4, audio=8))
    tokens = view.tokens  # 320 video in 20 frames, 80 in the five first ones; 80 audio
    whole = {budget: int(tokens.audio[kept(budget, view)].sum()) for budget in (0.9, 0.5, 0.4)}
    assert set(whole.values()) == {80}
    assert int(tokens.audio[kept(0.4, view)].sum()) == 80
    assert int(tokens.audio[kept(0.2, view)].sum()) == 40
    assert int(tokens.audio[kept(0.05, view)].sum()) == 10


@pytest.mark.parametrize("budget", [0.05, 0.3, 0.8])
def test_audio_can_have_the_share_of_video(budget):
    view = entry_view(clip(chunks=10, grids=2, height=4, width=4, audio=8))
    method = DyCoke(budget=budget, audio="even")
    left = method.enter(view, method.plan(view.tokens, 8)).keep
    assert int(view.tokens.audio[left].sum()) == round(80 * budget)
    assert int(view.tokens.video[left].sum()) == round(320 * budget)


def test_longer_groups_where_first_frames_are_too_many():
    view = entry_view(clip(chunks=8, grids=2, height=4, width=4, audio=0))
    frames = frames_of(view.tokens)  # 16 frames of 16: a quarter is 64 tokens
    chosen = set(kept(0.15, view).tolist())
    whole = [f for f, rows in enumerate(frames) if set(rows) <= chosen]
    assert whole == [0, 8]
    assert len(chosen) == round(0.15 * 256)
    thin = kept(0.04, view)
    assert set(thin.tolist()) <= set(frames[0])


def test_a_still_picture_keeps_only_first_frames():
    """Frames 2 to 4 repeat the first but for one place, which is what stays of them."""
    view = entry_view(clip(chunks=2, grids=2, height=3, width=3, audio=0))
    frames = frames_of(view.tokens)
    for rows in frames[1:]:
        view.embeds[rows] = view.embeds[frames[0]]
    view.embeds[frames[1][4]] *= -1
    view.embeds[frames[2][7]] *= -1
    view.embeds[frames[3][2]] *= -1
    method = DyCoke(budget=12 / 36)
    chosen = method.enter(view, method.plan(view.tokens, 8)).keep.tolist()
    assert chosen == sorted([*frames[0], frames[1][4], frames[2][7], frames[3][2]])


def kept(budget, view):
    """Return what DyCoke keeps at a budget."""
    method = DyCoke(budget=budget)
    return method.enter(view, method.plan(view.tokens, 8)).keep
