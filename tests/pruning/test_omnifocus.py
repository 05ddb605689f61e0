"""OmniFocus against plain loops written from its description."""

from __future__ import annotations

import math
from dataclasses import replace

import plain
import pytest
import torch

from omnidrop.errors import UsageError
from omnidrop.pruning.methods.omnifocus import OmniFocus
from omnidrop.pruning.registry import get_method, get_preset
from omnidrop.testing.simulate import clip, entry_view
from omnidrop.tokens import Kind

#: (audio, video) shares that stay.
PATH = [(0.0, 0.0), (0.55, 0.20), (0.65, 0.30), (0.75, 0.40), (1.0, 1.0)]
USUAL = clip(chunks=20, grids=2, height=10, width=15, audio=50)


def mean_of(rows):
    """Mean of some rows."""
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def drop_rates(scores, sizes, dropped, least=0.35, most=0.75):
    """1 − softmax, scaled to the range, moved by one number until `dropped` tokens go."""
    total = sum(math.exp(s) for s in scores)
    blur = [1 - math.exp(s) / total for s in scores]
    low, high = min(blur), max(blur)
    rates = [least + (most - least) * (b - low) / (high - low or 1.0) for b in blur]

    def moved(by):
        return [min(max(r + by, 0.0), 1.0) for r in rates]

    below, above = -1.0, 1.0
    for _ in range(80):
        middle = (below + above) / 2
        goes = sum(r * n for r, n in zip(moved(middle), sizes, strict=True))
        below, above = (middle, above) if goes < dropped else (below, middle)
    return moved(above)


def slow_omnifocus(view, n_audio, n_video, association=0.5):
    """Chunk by chunk: what stays."""
    tokens, embeds = view.tokens, view.embeds.double().tolist()
    question = mean_of(view.question_embeds.double().tolist())
    kept = []
    for kind, other, count in (
        (Kind.AUDIO, Kind.VIDEO, n_audio),
        (Kind.VIDEO, Kind.AUDIO, n_video),
    ):
        own, far = plain.of_kind(tokens, kind), plain.of_kind(tokens, other)
        chunks = sorted({int(tokens.chunk[i]) for i in own})
        cells = [[i for i in own if int(tokens.chunk[i]) == c] for c in chunks]
        scores = [max(plain.cosine(embeds[i], question) for i in cell) for cell in cells]
        sizes = [len(cell) for cell in cells]
        if not cells:
            continue
        rates = drop_rates(scores, sizes, len(own) - count)
        quotas = plain.whole_numbers([1 - r for r in rates], sizes, count)
        for c, cell, quota in zip(chunks, cells, quotas, strict=True):
            across = [embeds[i] for i in far if int(tokens.chunk[i]) == c]
            linked = []
            if across:
                middle = mean_of(across)
                alike = [plain.cosine(embeds[i], middle) for i in cell]
                linked = plain.best(alike, math.floor(association * quota))
            centre = mean_of([embeds[i] for i in cell])
            left = [n for n in range(len(cell)) if n not in linked]
            apart = [1 - plain.cosine(embeds[cell[n]], centre) for n in left]
            peaks = [left[m] for m in plain.best(apart, quota - len(linked))]
            kept += [cell[n] for n in (*linked, *peaks)]
    return sorted(kept)


@pytest.mark.parametrize("budget", [0.05, 0.2, 0.35, 0.6, 0.9])
@pytest.mark.parametrize("association", [0.0, 0.5, 1.0])
def test_survivors_are_those_of_the_plain_reading(association, budget):
    for seed in range(3):
        view = entry_view(clip(chunks=6, grids=2, height=3, width=4, audio=10), seed)
        method = OmniFocus(budget=budget, association=association)
        plan = method.plan(view.tokens, 28)
        count = plan.counts[0]
        n_audio = plain.quota_on_path(60, 144, count, PATH)
        assert plan.settings["audio_kept"] == n_audio
        kept = method.enter(view, plan).keep.tolist()
        assert kept == slow_omnifocus(view, n_audio, count - n_audio, association)


@pytest.mark.parametrize("tokens", [clip(chunks=5, audio=0), clip(chunks=5, grids=0)])
def test_a_clip_of_one_modality_keeps_peaks(tokens):
    view = entry_view(tokens, 0)
    method = OmniFocus(budget=0.3)
    plan = method.plan(tokens, 28)
    audio = int(tokens.audio.any())
    kept = method.enter(view, plan).keep.tolist()
    assert kept == slow_omnifocus(view, audio * plan.counts[0], (1 - audio) * plan.counts[0])


def test_sound_may_end_before_the_picture():
    tokens = clip(chunks=6, grids=2, height=4, width=4, audio=10)
    view = entry_view(tokens.select(tokens.video | (tokens.chunk < 3)))
    method = OmniFocus(budget=0.4)
    plan = method.plan(view.tokens, 28)
    n_audio = plan.settings["audio_kept"]
    kept = method.enter(view, plan).keep.tolist()
    assert kept == slow_omnifocus(view, n_audio, plan.counts[0] - n_audio)


def test_the_moment_that_is_asked_about_keeps_most():
    tokens = clip(chunks=6, grids=2, height=4, width=4, audio=20)
    view = entry_view(tokens, 0)
    asked = view.question_embeds.mean(0)
    heard = ((tokens.chunk == 4) & tokens.audio).nonzero().flatten()[3]
    shown = ((tokens.chunk == 1) & tokens.video).nonzero().flatten()[5]
    view.embeds[heard] = view.embeds[shown] = 3 * asked
    method = OmniFocus(budget=0.35)
    survivors = tokens.select(method.enter(view, method.plan(tokens, 28)).keep)
    for mask, chunk in ((survivors.audio, 4), (survivors.video, 1)):
        by_chunk = torch.bincount(survivors.chunk[mask].long(), minlength=6)
        assert int(by_chunk.argmax()) == chunk
        assert int((by_chunk == by_chunk.max()).sum()) == 1


def test_another_question_keeps_other_tokens():
    view = entry_view(clip(chunks=6, audio=20), 0)
    method = OmniFocus(budget=0.3)
    plan = method.plan(view.tokens, 28)
    other = replace(view, question_embeds=-view.question_embeds)
    assert not torch.equal(method.enter(view, plan).keep, method.enter(other, plan).keep)


def test_in_a_composition_it_finds_the_question():
    view = entry_view(clip(chunks=6, audio=20), 0)
    joined = get_method("omnifocus+fastv", budget=0.3)
    assert joined.wants == OmniFocus.wants
    plan = joined.plan(view.tokens, 28)
    other = replace(view, question_embeds=-view.question_embeds)
    assert not torch.equal(joined.enter(view, plan).keep, joined.enter(other, plan).keep)


def test_without_a_question_it_says_so():
    view = replace(entry_view(clip(), 0), question_embeds=None)
    method = OmniFocus(budget=0.3)
    with pytest.raises(ValueError, match="by the question"):
        method.enter(view, method.plan(view.tokens, 28))


@pytest.mark.parametrize(("name", "heard", "seen"), [(35, 650, 1800), (25, 550, 1200)])
def test_the_presets_keep_their_shares_of_audio_and_video(name, heard, seen):
    plan = get_preset(f"omnifocus-{name}").plan(USUAL, 28)
    assert plan.counts == (heard + seen,) * 28
    assert (plan.settings["audio_kept"], plan.settings["video_kept"]) == (heard, seen)
    solved = OmniFocus(budget=name / 100).plan(USUAL, 28)
    assert solved.counts == plan.counts
    assert solved.settings["audio_kept"] == heard


@pytest.mark.parametrize(
    "fields",
    [{"least": 0.8}, {"most": 1.5}, {"association": -0.1}, {"ratios": (0.2,)}, {"ratios": "x"}],
)
def test_settings_that_cannot_be_meant(fields):
    with pytest.raises(UsageError):
        OmniFocus(**fields)
