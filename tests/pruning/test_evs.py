"""EVS against a plain-loop reading of what serving engines compute."""

from __future__ import annotations

import itertools

import pytest
import torch
from plain import cosine, frames_of

from omnidrop.pruning.methods.evs import Evs
from omnidrop.testing.simulate import clip, entry_view


def engines_choice(embeds, frames, count):
    """The first frame before all; then the highest 1 − cosine to the frame before, stably."""
    scored = [(255.0, i) for i in frames[0]]
    for before, rows in itertools.pairwise(frames):
        scored += [(1 - cosine(embeds[a], embeds[b]), a) for a, b in zip(rows, before, strict=True)]
    order = sorted(range(len(scored)), key=lambda n: -scored[n][0])
    return sorted(scored[n][1] for n in order[:count])


@pytest.mark.parametrize("budget", [0.4, 0.6, 0.85])
@pytest.mark.parametrize("chunks", [2, 5])
def test_video_that_stays_is_what_the_engines_keep(chunks, budget):
    for seed in range(3):
        view = entry_view(clip(chunks=chunks, grids=2, height=4, width=5, audio=6), seed)
        method = Evs(budget=budget)
        plan = method.plan(view.tokens, 12)
        kept = method.enter(view, plan).keep
        audio = view.tokens.audio.nonzero().flatten().tolist()
        assert set(audio) <= set(kept.tolist()), "audio stays whole"
        video = [i for i in kept.tolist() if i not in set(audio)]
        embeds = view.embeds.double().tolist()
        assert video == engines_choice(embeds, frames_of(view.tokens), len(video))
        assert len(kept) == plan.counts[0]


def test_under_audio_and_the_first_frame_both_are_thinned():
    view = entry_view(clip(chunks=4, grids=2, height=4, width=5, audio=10), 0)
    method = Evs(budget=0.1)
    plan = method.plan(view.tokens, 12)
    kept = method.enter(view, plan).keep
    is_audio = view.tokens.audio[kept]
    assert 0 < int(is_audio.sum()) < int(view.tokens.audio.sum())
    first = set(frames_of(view.tokens)[0])
    assert set(kept[~is_audio].tolist()) <= first
    assert len(kept) == plan.counts[0]


def test_what_stands_still_goes_first():
    tokens = clip(chunks=3, grids=2, height=2, width=2, audio=0)
    view = entry_view(tokens, 0)
    frames = frames_of(tokens)
    for rows in frames[1:]:
        view.embeds[rows] = view.embeds[frames[0]]
    moved = frames[3][2]
    view.embeds[moved] = -view.embeds[moved]
    method = Evs(budget=6 / 24)
    kept = method.enter(view, method.plan(tokens, 4)).keep.tolist()
    assert kept == sorted([*frames[0], moved, frames[4][2]]), "the change, and the change back"


def test_audio_can_be_thinned_to_the_same_share():
    view = entry_view(clip(chunks=4, grids=2, height=4, width=5, audio=10), 0)
    method = Evs(budget=0.5, audio="even")
    kept = method.enter(view, method.plan(view.tokens, 12)).keep
    assert int(view.tokens.audio[kept].sum()) == int(view.tokens.audio.sum()) // 2
    assert torch.equal(kept, kept.sort().values)
